"""Answers that are sent again only when they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags


def etag_of(body: bytes) -> str:
    """Return a strong ETag (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def answer(meta: Mapping[str, Any], body: bytes, etag: str, **headers: str) -> HttpResponse:
    """Return the JSON in `body`, or 304 where If-None-Match holds its ETag (RFC 9110, section 13.1.2)."""
    given = meta.get("HTTP_IF_NONE_MATCH")
    known = parse_etags(given) if given else []
    headers = {"ETag": etag, **headers}
    if "*" in known or etag in (word.removeprefix("W/") for word in known):
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(body, content_type="application/json", headers=headers)
