"""Requests that make a naive reader read the same input repeatedly, each in any size."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import jwt
import pytest
from asgiref.sync import async_to_sync
from django.http import parse_cookie
from httptools import HttpRequestParser

from ags.api.access_log import AccessLogEntry
from ags.api.application import StaffRequest
from ags.api.client_ip import get_client_address
from ags.api.errors import ApiError
from ags.api.middleware import handle_api_request
from ags.api.request import body, device, headers, parameters
from ags.api.request.gateway_request import GatewayRequest
from ags.api.responses import conditional_response
from ags.api.views.oauth import _credentials
from ags.asgi import application
from ags.server.connection import Connection
from ags.server.exchange import Exchange
from ags.sessions.exceptions import TokenRejected
from ags.sessions.services.account_choice import _TOKEN_PATTERN
from providers import claims, jose, strict_json
from providers.contract import KeyRing, TrustedKey, VerificationFailed
from providers.strict_json import NotStrictJSON
from providers.token_introspection import response
from tests.support.audit_trail import request_context

PACKET = 250
"""Bytes. A server reads 8 KiB at a time; Django, and the client that asks upstreams, 64 KiB."""

Call = Callable[[Any], Any]
Build = Callable[[int], Any]
Shapes = dict[str, tuple[Build, Call]]
"""What to build, and who reads it, by what it is."""

SECRET = bytes(range(32))
SCOPE = {
    "token_type": "optional",
    "clock_skew": 0,
    "issuer": "",
    "audience": "",
    "scope": "b",
}
FORM = "application/x-www-form-urlencoded"
PART = 'Content-Disposition: form-data; name="#"\r\n\r\nx\r\n--b\r\n'
RING = KeyRing("nagra", MappingProxyType({"key": TrustedKey(1, "key", "HS256", SECRET)}))


def expect_error(call: Call, error: type[Exception]) -> Call:
    """Demand that this input is refused."""

    def refused(given: Any) -> None:
        with pytest.raises(error):
            call(given)

    return refused


def text_of(unit: str, before: str = "", after: str = "") -> Build:
    return lambda size: before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def list_of(unit: str, before: str = "", after: str = "", between: str = ",") -> Build:
    """Units that differ, each with its number in the place of `#`."""
    return lambda size: (
        before
        + between.join(unit.replace("#", f"{number:05}") for number in range(size // (len(unit) + 5)))
        + after
    )


class Packets(io.BytesIO):
    """A body as it arrives. Some readers copy the rest of a packet for each thing that they find in it."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(PACKET if size is None or size < 0 else min(size, PACKET))


def environ(body: bytes = b"", **changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/oauth/introspect",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        **changes,
    }


def api_request(body: bytes = b"", **changes: Any) -> GatewayRequest:
    return GatewayRequest(environ(body, **changes), body)


def staff_request(body: bytes = b"", **changes: Any) -> StaffRequest:
    return StaffRequest(environ(body, **changes))


def in_meta(read: Callable[..., Any], name: str, **more: Any) -> Call:
    return lambda text: read({name: text}, **more)


# JSON

TOO_DEEP = text_of('\\"', '{"parameters":' + "[" * 33 + '"')


def read_json(text: str) -> Any:
    return strict_json.parse(text.encode())


refuse_json = expect_error(read_json, NotStrictJSON)
JSON: Shapes = {
    "a string that never ends, deep inside": (TOO_DEEP, refuse_json),
    "quotation marks": (text_of('"'), refuse_json),
    "strings that never end": (text_of('"[{', "[" * 32), refuse_json),
    "backslashes": (text_of("\\", "[" * 40 + '"'), refuse_json),
    "open brackets": (text_of("["), refuse_json),
    "many brackets": (text_of("[],", "[", "0]"), read_json),
    "escapes": (text_of("\\u0041", '"', '"'), read_json),
    "halves of pairs": (text_of("\\ud83d", '"', '"'), refuse_json),
    "escaped backslashes": (text_of("\\\\", '"\\u0041', '"'), read_json),
    "members": (list_of('"#":1', "{", "}"), read_json),
    "the same member": (text_of('"a":1,', "{", '"b":1}'), refuse_json),
    "numbers": (text_of("1e5,", "[", "1]"), read_json),
    "a long fraction": (text_of("1", "0."), read_json),
    "a long exponent": (text_of("1", "1e"), refuse_json),
    "an integer, as long as Python reads": (text_of("1"), read_json),
    "white space": (text_of(" "), refuse_json),
}


# JWS


def compact(build: Build, place: int) -> Build:
    """A token with that for one of its parts; `build` may make three characters of four."""

    def token(size: int) -> str:
        parts = ["eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleSJ9", "e30", "AAAA"]
        parts[place] = base64.urlsafe_b64encode(build(size * 3 // 4).encode()).rstrip(b"=").decode()
        return ".".join(parts)

    return token


def signed(size: int) -> str:
    claims_ = {f"{number:05}": 0 for number in range(size // 15)}
    return jwt.encode(claims_, SECRET, "HS256", {"kid": "key"})


verify_token = partial(jose.verify_jws, keys=RING, now=0.0)
JWS: Shapes = {
    "a header that never ends": (compact(TOO_DEEP, 0), expect_error(verify_token, VerificationFailed)),
    "claims that never end": (compact(TOO_DEEP, 1), expect_error(verify_token, VerificationFailed)),
    "a long signature": (compact(text_of("a"), 2), expect_error(verify_token, VerificationFailed)),
    "a header of many members": (
        compact(list_of('"#":1', "{", "}"), 0),
        expect_error(verify_token, VerificationFailed),
    ),
    "dots": (text_of("."), expect_error(verify_token, VerificationFailed)),
    "no dot": (text_of("a"), expect_error(verify_token, VerificationFailed)),
    "many claims": (signed, verify_token),
    "audiences": (
        lambda size: {"aud": ["a"] * size},
        expect_error(partial(claims.audiences, own="ags"), VerificationFailed),
    ),
    "scopes": (
        lambda size: {"scope": "a " * size},
        expect_error(partial(response.validate, settings=SCOPE, tenant="nagra", now=0.0), VerificationFailed),
    ),
}


# HTTP


def read_content_type(text: str) -> None:
    """Have the whole application answer, for the framework reads this header, too."""
    meta = environ(CONTENT_TYPE=text, HTTP_HOST="localhost", PATH_INFO="/oauth/introspect", body=b"{}")
    assert async_to_sync(handle_api_request)(GatewayRequest(meta, b"{}")).status_code == 415


def read_form(text: str) -> Any:
    return body.read_form(api_request(text.encode(), CONTENT_TYPE=FORM))


def read_staff_form(text: str) -> Any:
    return staff_request(text.encode(), CONTENT_TYPE=FORM).POST


def read_basic(text: str) -> Any:
    header = f"Basic {base64.b64encode(text.encode()).decode()}"
    return _credentials({"HTTP_AUTHORIZATION": header}, {})


def read_addresses(text: str) -> Any:
    return get_client_address(api_request(HTTP_X_FORWARDED_FOR=text, REMOTE_ADDR=text).META)


def read_etags(text: str) -> Any:
    return conditional_response({"HTTP_IF_NONE_MATCH": text}, b"{}", '"e"')


class Reader(Connection):
    """A connection that reads and does not answer."""

    def __init__(self) -> None:
        super().__init__(
            cast(
                Any,
                SimpleNamespace(
                    application=application, buffered=0, extensions=dict, free_buffer_space=lambda _: True
                ),
            )
        )
        self.parser = HttpRequestParser(self)
        self.transport = SimpleNamespace(pause_reading=lambda: None)
        self.received: list[Exchange] = []

    def _queue(self, exchange: Exchange) -> None:
        self.received.append(exchange)

    def _expire_in(self, seconds: float) -> None:
        pass


def read_head(text: str, packet: int | None = None) -> Any:
    reader = Reader()
    for data in iter(partial(io.BytesIO(text.encode()).read, packet), b""):
        reader.data_received(data)
    (exchange,) = reader.received
    assert exchange.method
    return exchange


def read_chunks(text: str, packet: int | None = PACKET) -> None:
    head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert read_head(head + text, packet).body


def read_parts(text: str) -> Any:
    body = text.encode()
    content_type = "multipart/form-data; boundary=b"
    request = staff_request(body, CONTENT_TYPE=content_type, **{"wsgi.input": Packets(body)})
    return request.POST, request.FILES


entry = AccessLogEntry("", "", None)
HTTP: Shapes = {
    "Content-Type: semicolons": (text_of(";"), read_content_type),
    "Content-Type: quoted semicolons": (text_of(";", 'a/b; a="'), read_content_type),
    "Content-Type: parts of a parameter": (list_of("a*#=a", "a/b;", "", ";"), read_content_type),
    "cookies": (list_of("a#=b", "", "", ";"), parse_cookie),
    "X-Forwarded-For": (text_of(","), read_addresses),
    "X-Forwarded-For: colons": (text_of("1:"), read_addresses),
    "X-Forwarded-For: digits": (text_of("1"), read_addresses),
    "If-None-Match": (text_of('W/"a",'), read_etags),
    "If-None-Match: no end": (text_of('"a'), read_etags),
    "x-correlation-id": (text_of("a."), in_meta(headers.read_correlation_id, "HTTP_X_CORRELATION_ID")),
    "nv-tenant-id": (
        text_of("a"),
        expect_error(in_meta(headers.read_tenant_id, "HTTP_NV_TENANT_ID", entry=entry), ApiError),
    ),
    "x-auth-service-id": (
        text_of("a "),
        expect_error(in_meta(headers.read_service_name, "HTTP_X_AUTH_SERVICE_ID", entry=entry), ApiError),
    ),
    "Authorization: spaces": (
        text_of(" ", "Bearer"),
        expect_error(in_meta(headers.read_bearer_token, "HTTP_AUTHORIZATION"), TokenRejected),
    ),
    "Authorization: a token": (
        text_of("a", "Bearer "),
        in_meta(headers.read_bearer_token, "HTTP_AUTHORIZATION"),
    ),
    "Authorization: Basic": (text_of("%c3%a4a", ":"), read_basic),
    "Authorization: Basic, of colons": (text_of(":%"), read_basic),
    "User-Token": (text_of("a.1"), _TOKEN_PATTERN.fullmatch),
    "a head": (list_of(f"a#: {' ' * 50}b\r\n", "GET / HTTP/1.1\r\n", "\r\n", ""), read_head),
    "chunks": (text_of("1\r\na\r\n", "", "0\r\n\r\n"), read_chunks),
    "chunks: an extension": (
        text_of('\\"', '1;a="', '"\r\na\r\n0\r\n\r\n'),
        partial(read_chunks, packet=None),
    ),
    "a form": (text_of("%C3%A4", "token="), read_form),
    "a form: members": (text_of("a=b&"), expect_error(read_form, ApiError)),
    "a form: nothing": (text_of("&"), expect_error(read_form, ApiError)),
    "a form of staff": (list_of("a#=%41+", "", "", "&"), read_staff_form),
    "a form of staff in parts": (list_of(PART, "--b\r\n", "", ""), read_parts),
    "a form of staff in parts: escapes": (
        list_of(PART.replace("#", '\\"' * 40 + "#"), "--b\r\n", "", ""),
        read_parts,
    ),
}


# Bodies, once they are JSON


def many_parameters(size: int) -> dict[str, Any]:
    return {"parameters": [{"name": f"n{number}", "value": "x"} for number in range(size // 30)]}


def nested(size: int) -> dict[str, Any]:
    return {"deviceInformation": {f"{number}": [{}] for number in range(size // 10)}}


BODIES: Shapes = {
    "parameters": (many_parameters, parameters.read_parameters),
    "device information": (nested, lambda body: device.read_device(body, request_context())),
}
