"""From the bytes of a request to a JSON object, or to the right 4xx."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl

from django.http import HttpRequest

from ags.api.errors import (
    BODY_MALFORMED,
    BODY_TOO_LARGE,
    FORM_EXPECTED,
    FORM_MALFORMED,
    REQUEST_MALFORMED,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
    Error,
)
from providers.strict_json import NotStrictJSON, parse

MAX_BYTES = 64 * 1024
FORM_MEMBERS = 20

CONTENT_TYPE_MAX_LENGTH = 255
"""Characters of a Content-Type that is read. Python takes quadratic time to find its parameters."""

UTF8 = {"utf-8", "utf8"}
"""What a charset may be called."""


def read_object(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the body. Raises ApiError: 400, 413 or 415."""
    raw = _read(request)
    if not raw:  # the content type of nothing does not matter
        raise ApiError(BODY_MALFORMED, problem="it is missing")
    _demand(request.META, "application/json", UNSUPPORTED_MEDIA_TYPE)
    return _object(raw)


def read_optional_object(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the body, an empty one where there is no body. Raises ApiError as above."""
    raw = _read(request)
    if not raw.strip():
        return {}
    _demand(request.META, "application/json", UNSUPPORTED_MEDIA_TYPE)
    return _object(raw)


def require_empty_body(request: HttpRequest) -> None:
    """Accept no body, an empty one, or an object, of whatever content type. Raises ApiError: 400, 413."""
    raw = _read(request)
    if raw.strip():
        _object(raw)


def read_form(request: HttpRequest) -> dict[str, str]:
    """Return the members of a form, each given once. Raises ApiError: 400, 413 or 415."""
    raw = _read(request)
    if not raw:
        raise ApiError(FORM_MALFORMED)
    _demand(request.META, "application/x-www-form-urlencoded", FORM_EXPECTED)
    try:
        text = raw.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FORM_MEMBERS
        )
    except ValueError:
        raise ApiError(FORM_MALFORMED) from None
    members = dict(pairs)
    if len(members) != len(pairs) or any("\0" in word for pair in pairs for word in pair):
        raise ApiError(FORM_MALFORMED)
    return members


def media_type(content_type: str) -> tuple[str, str]:
    """Return media type and charset of a Content-Type, in lower case.

    The extended parameters of RFC 2231 belong to mail, and are no charset that is known.
    """
    if len(content_type) > CONTENT_TYPE_MAX_LENGTH or "*" in content_type:
        return "", ""
    header = Message()
    header["Content-Type"] = content_type
    return header.get_content_type(), str(header.get_param("charset", "utf-8")).lower()


def content_length(meta: Mapping[str, Any]) -> int:
    """Return the length of the body as announced. Raises ApiError (400)."""
    length: str = meta.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal():
        raise ApiError(REQUEST_MALFORMED)
    # Python converts no number of thousands of digits.
    digits = length.lstrip("0")
    return int(digits or "0") if len(digits) < 20 else sys.maxsize


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = parse(raw)
    except NotStrictJSON as problem:
        raise ApiError(BODY_MALFORMED, problem=str(problem)) from None
    if not isinstance(value, dict):
        raise ApiError(BODY_MALFORMED, problem="it is another JSON value")
    return value


def _demand(meta: dict[str, Any], wanted: str, otherwise: Error) -> None:
    given = meta.get("CONTENT_TYPE", "")
    if given != wanted:  # which is what nearly everybody sends
        found, charset = media_type(given)
        if found != wanted or charset not in UTF8:
            raise ApiError(otherwise)
    if meta.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise ApiError(otherwise)


def _read(request: HttpRequest) -> bytes:
    length = content_length(request.META)
    if length > MAX_BYTES:
        raise ApiError(BODY_TOO_LARGE)
    return request.body
