"""Responses of the API: the expected errors, and invalid bodies with theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]


def send(browser: Client, method: str, path: str) -> Any:
    """Send a request with any method. A file in the response is read to its end, which closes it."""
    response: Any = browser.generic(method, path, headers={"x-correlation-id": CORRELATION_ID})
    if response.streaming:
        b"".join(response.streaming_content)
    return response


CORRELATION_ID = "call-4711"


def full_response(response: Any) -> dict[str, Any]:
    """Return status, headers and body of a response."""
    return {"status": response.status_code, **dict(response.headers), "body": response.content}


def error_response(
    status: int, code: int, reason: str, message: str, parameter: str | None = None, **headers: str
) -> dict[str, Any]:
    """Return the expected status, headers and body of an error."""
    body: dict[str, Any] = {"code": code, "reason": reason, "message": message}
    if parameter is not None:
        body["parameter"] = parameter
    raw = json.dumps(body | {"correlationId": CORRELATION_ID}, separators=(",", ":")).encode()
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ags"'
    return {
        "status": status,
        "Content-Type": "application/json",
        "Content-Length": str(len(raw)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "x-correlation-id": CORRELATION_ID,
        "body": raw,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }


def body_malformed(problem: str) -> dict[str, Any]:
    return error_response(400, 40005, "body_malformed", f"The body is not a strict JSON object: {problem}.")


NOT_JSON = body_malformed("it is not well-formed JSON")
NOT_AN_OBJECT = body_malformed("it is another JSON value")
TOO_DEEP = body_malformed("it is nested deeper than 32 levels")
NOT_UTF_8 = body_malformed("it is not UTF-8")
DUPLICATE_MEMBER = body_malformed("it has a duplicate member")
UNSTORABLE = body_malformed("it contains NUL or a lone surrogate")
PARAMETERS_MALFORMED = error_response(
    400,
    40006,
    "parameters_malformed",
    'The member parameters must be an array of {"name": string, "value": string}.',
)
PARAMETER = "OperatorAuthToken"
PARAMETER_INVALID = "The value of the parameter is not a string of the declared length."


def parameter_invalid(parameter: str = PARAMETER) -> dict[str, Any]:
    return error_response(400, 40010, "parameter_invalid", PARAMETER_INVALID, parameter)


def single_parameter(name: Any, value: Any) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value}]}


BODY_MISSING = body_malformed("it is missing")
INVALID_BODIES = {
    "nothing": (b"", BODY_MISSING),
    "nothing but a space": (b" ", NOT_JSON),
    "an array": (b"[]", NOT_AN_OBJECT),
    "a string": (b'"x"', NOT_AN_OBJECT),
    "a number": (b"1", NOT_AN_OBJECT),
    "null": (b"null", NOT_AN_OBJECT),
    "not JSON": (b"{", NOT_JSON),
    "a form": (b"a=b", NOT_JSON),
    "990 open brackets": (b"[" * 990, TOO_DEEP),
    "40,000 open brackets": (b"[" * 40_000, TOO_DEEP),
    "33 levels": (b'{"a":' * 33 + b"1" + b"}" * 33, TOO_DEEP),
    "NaN": (b'{"a": NaN}', body_malformed("NaN and Infinity are not JSON")),
    "Infinity": (b'{"a": -Infinity}', body_malformed("NaN and Infinity are not JSON")),
    "1e400": (b'{"a": 1e400}', body_malformed("a number is too large")),
    "an integer of 5,000 digits": (b'{"a": ' + b"1" * 5000 + b"}", NOT_JSON),
    "parameters twice": (b'{"parameters": [], "parameters": []}', DUPLICATE_MEMBER),
    "a member twice, inside": (
        b'{"parameters": [{"name": "a", "name": "b", "value": ""}]}',
        DUPLICATE_MEMBER,
    ),
    "UTF-16": ('{"parameters": []}'.encode("utf-16"), NOT_UTF_8),
    "Latin-1": ('{"ä": 1}'.encode("latin-1"), NOT_UTF_8),
    "an encoded surrogate": (b'{"a": "\xed\xa0\x80"}', NOT_UTF_8),
    "a byte order mark": ('\ufeff{"parameters": []}'.encode(), NOT_JSON),
    "an escaped NUL": (rb'{"a": "\u0000"}', UNSTORABLE),
    "half a surrogate pair": (rb'{"a": "\ud800"}', UNSTORABLE),
    "a NUL": (b'{"a": "\0"}', NOT_JSON),
    "no parameters": ({}, PARAMETERS_MALFORMED),
    "parameters null": ({"parameters": None}, PARAMETERS_MALFORMED),
    "parameters an object": ({"parameters": {PARAMETER: "x"}}, PARAMETERS_MALFORMED),
    "a parameter that is a string": ({"parameters": ["x"]}, PARAMETERS_MALFORMED),
    "a parameter that is null": ({"parameters": [None]}, PARAMETERS_MALFORMED),
    "a parameter without a name": ({"parameters": [{"value": "x"}]}, PARAMETERS_MALFORMED),
    "a name that is a number": (single_parameter(1, "x"), PARAMETERS_MALFORMED),
    "a name that is empty": (single_parameter("", "x"), PARAMETERS_MALFORMED),
    "a name of 129 characters": (single_parameter("n" * 129, "x"), PARAMETERS_MALFORMED),
    "a parameter without a value": ({"parameters": [{"name": PARAMETER}]}, parameter_invalid()),
    "a value that is null": (single_parameter(PARAMETER, None), parameter_invalid()),
    "a value that is a number": (single_parameter(PARAMETER, 1), parameter_invalid()),
    "a value that is true": (single_parameter(PARAMETER, True), parameter_invalid()),
    "a value that is an array": (single_parameter(PARAMETER, ["x"]), parameter_invalid()),
    "a value that is an object": (single_parameter(PARAMETER, {}), parameter_invalid()),
    "a value of 8,193 characters": (single_parameter(PARAMETER, "x" * 8193), parameter_invalid()),
    "the same parameter twice": (
        {"parameters": [{"name": PARAMETER, "value": "x"}, {"name": PARAMETER, "value": "y"}]},
        error_response(400, 40008, "parameter_repeated", "The parameter occurs more than once.", PARAMETER),
    ),
    "the same parameter in two spellings": (
        {"parameters": [{"name": PARAMETER, "value": "x"}, {"name": PARAMETER.lower(), "value": "y"}]},
        error_response(
            400, 40008, "parameter_repeated", "The parameter occurs more than once.", PARAMETER.lower()
        ),
    ),
    "an unknown parameter": (
        single_parameter("Username", "x"),
        error_response(
            400,
            40007,
            "parameter_unknown",
            "The service does not declare a parameter with this name.",
            "Username",
        ),
    ),
    "a parameter missing": (
        {"parameters": []},
        error_response(400, 40009, "parameter_missing", "A mandatory parameter is missing.", PARAMETER),
    ),
}


BODY_TOO_LARGE = error_response(
    413,
    41300,
    "body_too_large",
    "The body exceeds 64 KiB, or a form of the admin exceeds 2.5 MiB or 1,000 fields.",
)


def header_missing(name: str) -> dict[str, Any]:
    return error_response(400, 40001, "header_missing", f"The header {name} is missing.")


NOT_AUTHENTICATED = error_response(
    401, 40100, "not_authenticated", "The credentials are invalid or have expired."
)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"]


SERVICE_NOT_AVAILABLE = error_response(
    403, 40300, "service_not_available", "The tenant does not offer this service."
)


UNAVAILABLE = error_response(
    503, 50300, "unavailable", "The service is temporarily unavailable. Retry later.", Retry_After="1"
)

ACCOUNT_CANCELLED = error_response(403, 20001, "account_cancelled", "The account is cancelled.")
ACCOUNT_SUSPENDED = error_response(403, 20002, "account_suspended", "The account is suspended.")
DEVICE_UNKNOWN = error_response(
    403, 20003, "device_unknown", "The device is unknown or has been deleted. Sign on again."
)
DEVICE_DISABLED = error_response(403, 20004, "device_disabled", "The device is disabled.")
DEVICE_LIMIT_REACHED = error_response(
    403, 20007, "device_limit_reached", "The account has reached its maximum number of devices."
)
SIGN_ON_MALFORMED = error_response(
    400,
    40011,
    "sign_on_malformed",
    "The body must contain either clientId (a string) or deviceInformation (an object).",
)
