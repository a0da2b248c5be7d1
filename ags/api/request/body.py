"""Parsing of request bodies: JSON objects and forms."""

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
MAX_FORM_FIELDS = 20

CONTENT_TYPE_MAX_LENGTH = 255
"""In characters. Python takes quadratic time to parse the parameters of a Content-Type."""

UTF8 = {"utf-8", "utf8"}
"""Accepted spellings of the charset."""


def read_object(
    request: HttpRequest, *, required: bool = True, any_content_type: bool = False
) -> dict[str, Any]:
    """Return {} for a blank body that is not required. Raises ApiError: 400, 413 or 415."""
    if parse_content_length(request.META) > MAX_BYTES:
        raise ApiError(BODY_TOO_LARGE)
    if not required and not request.body.strip():
        return {}
    if not request.body:  # without a body, the Content-Type does not matter
        raise ApiError(BODY_MALFORMED, problem="it is missing")
    if not any_content_type:
        _check_content_type(request.META, "application/json", UNSUPPORTED_MEDIA_TYPE)
    try:
        value = parse(request.body)
    except NotStrictJSON as problem:
        raise ApiError(BODY_MALFORMED, problem=str(problem)) from None
    if not isinstance(value, dict):
        raise ApiError(BODY_MALFORMED, problem="it is another JSON value")
    return value


def read_form(request: HttpRequest) -> dict[str, str]:
    """Return the fields of a form; none may be repeated. Raises ApiError: 400, 413 or 415."""
    if parse_content_length(request.META) > MAX_BYTES:
        raise ApiError(BODY_TOO_LARGE)
    if not request.body:
        raise ApiError(FORM_MALFORMED)
    _check_content_type(request.META, "application/x-www-form-urlencoded", FORM_EXPECTED)
    try:
        text = request.body.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        raise ApiError(FORM_MALFORMED) from None
    fields = dict(pairs)
    if len(fields) != len(pairs) or any("\0" in text for pair in pairs for text in pair):
        raise ApiError(FORM_MALFORMED)
    return fields


def parse_content_type(content_type: str) -> tuple[str, str]:
    """Return the media type and the charset, in lower case; two empty strings if they are not supported.

    Extended parameters (RFC 2231), which `Message` would decode, are for mail and not supported.
    """
    if len(content_type) > CONTENT_TYPE_MAX_LENGTH or "*" in content_type:
        return "", ""
    header = Message()
    header["Content-Type"] = content_type
    return header.get_content_type(), str(header.get_param("charset", "utf-8")).lower()


def parse_content_length(meta: Mapping[str, Any]) -> int:
    """Return Content-Length, 0 if it is missing. Raises ApiError (400)."""
    length: str = meta.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal():
        raise ApiError(REQUEST_MALFORMED)
    # Python raises ValueError for integers of thousands of digits.
    digits = length.lstrip("0")
    return int(digits or "0") if len(digits) < 20 else sys.maxsize


def _check_content_type(meta: dict[str, Any], expected: str, error: Error) -> None:
    content_type = meta.get("CONTENT_TYPE", "")
    if content_type != expected:  # parse only unusual spellings
        media_type, charset = parse_content_type(content_type)
        if media_type != expected or charset not in UTF8:
            raise ApiError(error)
    if meta.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise ApiError(error)
