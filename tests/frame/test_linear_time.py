"""Whatever reads input that is not trusted does work in proportion to its size.

Each shape makes a naive reader read the same input repeatedly. Each is tested in three sizes, each double the
previous one: the second increase of the work may be little more than twice the first. Constant costs are in
neither. `tests/support/work.py` defines work: a count, not a measurement of time.

What C does beyond its methods of texts is not counted: `json`, `base64`, OpenSSL and libldap are taken for
linear. `test_patterns.py` holds our regular expressions to be. Where those of others are not, their input is
bounded: a cookie with escapes is dropped, a long search finds nothing. So are nested brackets in YAML, which
would take minutes to count: PyYAML looks up to 1,024 characters ahead of each.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import h11
import jwt
import pytest
from asgiref.sync import async_to_sync
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from django.core.exceptions import ValidationError
from django.http import parse_cookie
from httptools import HttpRequestParser

from ags.api.access_log import AccessLogEntry
from ags.api.application import StaffRequest
from ags.api.client_ip import client_ip
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
from providers.contract import (
    CertificatesField,
    HTTPSField,
    KeyRing,
    TrustedKey,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.jwks import JWKSetReader, PublicKeysField, UnusableKey, parse_static_keys
from providers.oidc_id_token.discovery import DiscoveryReader
from providers.operator_login import endpoint
from providers.operator_login.password_decryption import decrypt_password
from providers.strict_json import NotStrictJSON
from providers.token_introspection import response
from providers.upstream import Response
from tenants.config_file.schema import parse_tenants
from tenants.config_file.yaml_loader import ConfigurationError
from tenants.secrets import key_material
from tests.support.markers import skip_unless_installed
from tests.support.work import count_work

SMALLEST = 500
"""Characters; the largest input has four times as many, which is within the limits of most readers."""

MORE = 2.3
"""How much the growth of the work may grow where the input doubles."""

PACKET = 250
"""Bytes. A server reads 8 KiB at a time; Django, and the client that asks upstreams, 64 KiB."""

SLACK = 200
"""Instructions by which two runs of the same may differ, such as those that find a cache full."""

Call = Callable[[Any], Any]
Build = Callable[[int], Any]
Shapes = dict[str, tuple[Build, Call]]
"""What to build, and who reads it, by what it is."""

SECRET = bytes(range(32))
RSA_KEY = generate_private_key(65537, 2048)
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


def refuses(call: Call, error: type[Exception]) -> Call:
    """Demand that this input is refused."""

    def refused(given: Any) -> None:
        with pytest.raises(error):
            call(given)

    return refused


def repeated(unit: str, before: str = "", after: str = "") -> Build:
    return lambda size: before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def many(unit: str, before: str = "", after: str = "", between: str = ",") -> Build:
    """Units that differ, each with its number in the place of `#`."""
    return lambda size: (
        before
        + between.join(unit.replace("#", f"{number:05}") for number in range(size // (len(unit) + 5)))
        + after
    )


def encoded(build: Build) -> Build:
    return lambda size: build(size).encode()


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

TOO_DEEP = repeated('\\"', '{"parameters":' + "[" * 33 + '"')


def read_json(text: str) -> Any:
    return strict_json.parse(text.encode())


refuse_json = refuses(read_json, NotStrictJSON)
JSON: Shapes = {
    "a string that never ends, deep inside": (TOO_DEEP, refuse_json),
    "quotation marks": (repeated('"'), refuse_json),
    "strings that never end": (repeated('"[{', "[" * 32), refuse_json),
    "backslashes": (repeated("\\", "[" * 40 + '"'), refuse_json),
    "open brackets": (repeated("["), refuse_json),
    "many brackets": (repeated("[],", "[", "0]"), read_json),
    "escapes": (repeated("\\u0041", '"', '"'), read_json),
    "halves of pairs": (repeated("\\ud83d", '"', '"'), refuse_json),
    "escaped backslashes": (repeated("\\\\", '"\\u0041', '"'), read_json),
    "members": (many('"#":1', "{", "}"), read_json),
    "the same member": (repeated('"a":1,', "{", '"b":1}'), refuse_json),
    "numbers": (repeated("1e5,", "[", "1]"), read_json),
    "a long fraction": (repeated("1", "0."), read_json),
    "a long exponent": (repeated("1", "1e"), refuse_json),
    "an integer, as long as Python reads": (repeated("1"), read_json),
    "white space": (repeated(" "), refuse_json),
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


prove = partial(jose.verify_jws, keys=RING, now=0.0)
JWS: Shapes = {
    "a header that never ends": (compact(TOO_DEEP, 0), refuses(prove, VerificationFailed)),
    "claims that never end": (compact(TOO_DEEP, 1), refuses(prove, VerificationFailed)),
    "a long signature": (compact(repeated("a"), 2), refuses(prove, VerificationFailed)),
    "a header of many members": (compact(many('"#":1', "{", "}"), 0), refuses(prove, VerificationFailed)),
    "dots": (repeated("."), refuses(prove, VerificationFailed)),
    "no dot": (repeated("a"), refuses(prove, VerificationFailed)),
    "many claims": (signed, prove),
    "audiences": (
        lambda size: {"aud": ["a"] * size},
        refuses(partial(claims.audiences, own="ags"), VerificationFailed),
    ),
    "scopes": (
        lambda size: {"scope": "a " * size},
        refuses(partial(response.validate, settings=SCOPE, tenant="nagra", now=0.0), VerificationFailed),
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
    return client_ip(api_request(HTTP_X_FORWARDED_FOR=text, REMOTE_ADDR=text))


def read_etags(text: str) -> Any:
    return conditional_response({"HTTP_IF_NONE_MATCH": text}, b"{}", '"e"')


class Reader(Connection):
    """A connection that reads and does not answer."""

    def __init__(self) -> None:
        super().__init__(
            SimpleNamespace(
                application=application, buffered=0, extensions=dict, free_buffer_space=lambda _: True
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


entry = AccessLogEntry("", "")
HTTP: Shapes = {
    "Content-Type: semicolons": (repeated(";"), read_content_type),
    "Content-Type: quoted semicolons": (repeated(";", 'a/b; a="'), read_content_type),
    "Content-Type: parts of a parameter": (many("a*#=a", "a/b;", "", ";"), read_content_type),
    "cookies": (many("a#=b", "", "", ";"), parse_cookie),
    "X-Forwarded-For": (repeated(","), read_addresses),
    "X-Forwarded-For: colons": (repeated("1:"), read_addresses),
    "X-Forwarded-For: digits": (repeated("1"), read_addresses),
    "If-None-Match": (repeated('W/"a",'), read_etags),
    "If-None-Match: no end": (repeated('"a'), read_etags),
    "x-correlation-id": (repeated("a."), in_meta(headers.read_correlation_id, "HTTP_X_CORRELATION_ID")),
    "nv-tenant-id": (
        repeated("a"),
        refuses(in_meta(headers.read_tenant_id, "HTTP_NV_TENANT_ID", entry=entry), ApiError),
    ),
    "x-auth-service-id": (
        repeated("a "),
        refuses(in_meta(headers.read_service_name, "HTTP_X_AUTH_SERVICE_ID", entry=entry), ApiError),
    ),
    "Authorization: spaces": (
        repeated(" ", "Bearer"),
        refuses(in_meta(headers.read_bearer_token, "HTTP_AUTHORIZATION"), TokenRejected),
    ),
    "Authorization: a token": (
        repeated("a", "Bearer "),
        in_meta(headers.read_bearer_token, "HTTP_AUTHORIZATION"),
    ),
    "Authorization: Basic": (repeated("%c3%a4a", ":"), read_basic),
    "Authorization: Basic, of colons": (repeated(":%"), read_basic),
    "User-Token": (repeated("a.1"), _TOKEN_PATTERN.fullmatch),
    "a head": (many(f"a#: {' ' * 50}b\r\n", "GET / HTTP/1.1\r\n", "\r\n", ""), read_head),
    "chunks": (repeated("1\r\na\r\n", "", "0\r\n\r\n"), read_chunks),
    "chunks: an extension": (
        repeated('\\"', '1;a="', '"\r\na\r\n0\r\n\r\n'),
        partial(read_chunks, packet=None),
    ),
    "a form": (repeated("%C3%A4", "token="), read_form),
    "a form: members": (repeated("a=b&"), refuses(read_form, ApiError)),
    "a form: nothing": (repeated("&"), refuses(read_form, ApiError)),
    "a form of staff": (many("a#=%41+", "", "", "&"), read_staff_form),
    "a form of staff in parts": (many(PART, "--b\r\n", "", ""), read_parts),
    "a form of staff in parts: escapes": (
        many(PART.replace("#", '\\"' * 40 + "#"), "--b\r\n", "", ""),
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
    "device information": (nested, device.read_device),
}

# Upstreams


def read_answer(text: str) -> Any:
    return Response(200, {}, text.encode()).json_object()


def read_accounts(text: str) -> Any:
    return endpoint._parse_accounts(Response(200, {}, text.encode()))


def read_key_set(text: str) -> Any:
    return JWKSetReader("nagra", ("EdDSA", "RS256"))(text.encode())


def read_discovery(text: str) -> Any:
    return DiscoveryReader("nagra", "https://a", ("RS256",), 1.0, "")(text.encode())


def read_http(text: str, packet: int | None = None) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    for data in iter(partial(io.BytesIO(text.encode()).read, packet), b""):
        client.receive_data(data)
        while isinstance(client.next_event(), h11.Event):
            pass


def read_radius(attributes: bytes) -> None:
    from providers.radius import exchange

    request = exchange.access_request("a", "b", {"shared_secret": "secret", "nas_identifier": "ags"})
    request.authenticator = bytes(16)
    reply = struct.pack("!BBH16s", 2, request.id, 20 + len(attributes), bytes(16)) + attributes
    assert exchange._verify_response(request, reply) is None


def filter_for(username: str) -> Any:
    from providers.ldap.strategy import _filter

    return _filter(username, {"user_filter": "(uid={username})"})


ACCOUNT = '{"accountId":"a","accountInformation":"the house by the sea"},'
HTTP_200 = "HTTP/1.1 200 OK\r\n"
CHUNKED = f"{HTTP_200}Transfer-Encoding: chunked\r\n\r\n"
KEY = '{"kty":"OKP","crv":"Ed25519","kid":"#","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
UPSTREAMS: Shapes = {
    "an answer that never ends": (TOO_DEEP, refuses(read_answer, UpstreamUnavailable)),
    "accounts": (
        repeated(ACCOUNT, '{"accounts":[', ACCOUNT.removesuffix(",") + "]}"),
        refuses(read_accounts, UpstreamUnavailable),
    ),
    "a key set that never ends": (TOO_DEEP, refuses(read_key_set, UpstreamUnavailable)),
    "a key set of keys": (many(KEY, '{"keys":[', "]}"), read_key_set),
    "a key set of a long key": (
        repeated("A", '{"keys":[{"kty":"RSA","kid":"a","e":"AQAB","n":"', '"}]}'),
        refuses(read_key_set, UpstreamUnavailable),
    ),
    "a discovery document that never ends": (TOO_DEEP, refuses(read_discovery, UpstreamUnavailable)),
    "a discovery document with a long address": (
        lambda size: f'{{"issuer":"https://a","jwks_uri":"https://{"[" * (size // 5)}"}}',
        refuses(read_discovery, UpstreamUnavailable),
    ),
    "a head": (many("a#: b\r\n", HTTP_200, "\r\n", ""), read_http),
    "a head: white space": (repeated(" \t", f"{HTTP_200}a: b", "c\r\n\r\n"), read_http),
    "a head: folded": (repeated(" b\r\n", f"{HTTP_200}a: b\r\n", "\r\n"), read_http),
    "chunks": (repeated("1\r\na\r\n", CHUNKED), partial(read_http, packet=PACKET)),
    "chunks: an extension": (repeated(" ", f"{CHUNKED}1;", "\r\n"), read_http),
}
RADIUS: Shapes = {
    "attributes": (lambda size: b"\1\2" * (size // 2), read_radius),
    "of vendors": (lambda size: b"\x1a\x08abcd\1\2" * (size // 8), read_radius),
    "proofs": (lambda size: (b"\x50\x12" + bytes(16)) * (size // 18), read_radius),
}
LDAP: Shapes = {
    "a username in a filter": (repeated("*("), filter_for),
}

# What staff and operators enter


def read_entered(text: str) -> Any:
    return parse_static_keys("nagra", text, "key", ("RS256", "EdDSA"))


def read_file(text: str) -> Any:
    return parse_tenants(text.encode())


refuse_file = refuses(read_file, ConfigurationError)
refuse_entered = refuses(read_entered, UnusableKey)
refuse_certificates = refuses(CertificatesField(max_length=None).clean, ValidationError)
refuse_secret = refuses(partial(key_material.decode, encoding="base64"), ValidationError)
ENTERED: Shapes = {
    "PEM: no end": (repeated("A", "-----BEGIN PUBLIC KEY-----"), refuse_entered),
    "PEM: beginnings": (repeated("-----BEGIN PUBLIC KEY-----"), refuse_entered),
    "PEM: no key": (
        repeated("A\n", "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"),
        refuse_entered,
    ),
    "certificates: beginnings": (repeated("-----BEGIN CERTIFICATE-----"), refuse_certificates),
    "certificates: of another label": (repeated("-----BEGIN "), refuse_certificates),
    "a JWK Set that never ends": (repeated('"d"  ', '{"keys":['), PublicKeysField().clean),
    "an address": (repeated("[", "https://"), refuses(HTTPSField(max_length=None).clean, ValidationError)),
    "claims": (many("a#=b", "", "", "\n"), claims.RequiredClaimsField(max_length=None).clean),
    "base64": (repeated("A"), partial(key_material.decode, encoding="base64")),
    "base64: padding": (repeated("="), refuse_secret),
    "an encrypted password": (
        repeated("A "),
        lambda text: decrypt_password(text, RSA_KEY, "oaep_sha256"),
    ),
}

# Files of configuration

YAML: Shapes = {
    "entries": (many("- id: t#\n", "tenants:\n", "", ""), read_file),
    "entries of a tenant": (
        many("{kid: k#, secret: {text: a}}", "tenants: [{id: a, keys: [", "]}]"),
        read_file,
    ),
    "entries with errors": (many("- {id: t#, x: 1}\n", "tenants:\n", "", ""), refuse_file),
    "unknown members": (many("x#: 1", "tenants: [{id: a, ", "}]"), refuse_file),
    "members of another type": (repeated("1,", "tenants: [{id: a, allowed_origins: [", "1]}]"), refuse_file),
    "members of a secret": (
        many("x#: 1", "tenants: [{id: a, keys: [{kid: k, secret: {", "}}]}]"),
        refuse_file,
    ),
    "names": (many("n#: 1\n", "", "", ""), refuse_file),
    "a long name": (repeated("a", "? ", "\n: [1, 2]\n"), refuse_file),
    "a list in a line": (repeated("1,", "[", "1]"), refuse_file),
    "quotation marks": (repeated("''", "a: '"), refuse_file),
    "escapes": (repeated("\\x41", 'a: "', '"'), refuse_file),
    "a block": (repeated(" a\n", "a: |\n"), refuse_file),
    "empty lines": (repeated("\n", "a: b", "c: d"), refuse_file),
    "lists in lists": (repeated("- "), refuse_file),
    "anchors": (many("- &a# [*a#]\n", "", "", ""), refuse_file),
    "comments": (repeated("#\n"), refuse_file),
}

SHAPES = {
    "JSON": JSON,
    "JWS": JWS,
    "HTTP": HTTP,
    "a body": BODIES,
    "an upstream": UPSTREAMS,
    "entered": ENTERED,
    "RADIUS": RADIUS,
    "LDAP": LDAP,
}
INSTALLED_BY = "pip install --require-hashes -r requirements/"
NEEDS = {
    "RADIUS": [skip_unless_installed(modules={"pyrad": f"{INSTALLED_BY}radius.txt"})],
    "LDAP": [skip_unless_installed(modules={"ldap": f"{INSTALLED_BY}ldap.txt"})],
}
ALL = [
    pytest.param(*shape, id=f"{where}: {name}", marks=NEEDS.get(where, []))
    for where, shapes in SHAPES.items()
    for name, shape in shapes.items()
]


@pytest.mark.parametrize(("build", "read"), ALL)
def test_work_grows_no_faster_than_the_input(build: Build, read: Call) -> None:
    read(build(SMALLEST))  # what is looked up or made once is no work of the input
    small, double, fourfold = (count_work(partial(read, build(SMALLEST * times))) for times in (1, 2, 4))
    assert fourfold - double <= MORE * max(double - small, 0) + SLACK


@pytest.mark.parametrize(("build", "read"), YAML.values(), ids=YAML)
def test_work_on_a_file_grows_no_faster_than_the_file(build: Build, read: Call) -> None:
    """As above, in smaller sizes: PyYAML takes hundreds of instructions for a character."""
    test_work_grows_no_faster_than_the_input(lambda size: build(size // 8), read)
