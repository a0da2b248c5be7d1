"""JSON responses, and conditional responses with an ETag."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Response(HttpResponse):
    def __init__(self, data: Any, status: int = 200) -> None:
        super().__init__(_encode(data).encode(), status=status, content_type="application/json")


def compute_etag(body: bytes) -> str:
    """Return a strong ETag (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def conditional_response(meta: Mapping[str, Any], body: bytes, etag: str, **headers: str) -> HttpResponse:
    """RFC 9110, section 13.1.2. Django's `get_conditional_response` would also answer 412, without a body."""
    if_none_match = meta.get("HTTP_IF_NONE_MATCH")
    etags = parse_etags(if_none_match) if if_none_match else []
    headers = {"ETag": etag, **headers}
    if "*" in etags or etag in (candidate.removeprefix("W/") for candidate in etags):
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(body, content_type="application/json", headers=headers)
