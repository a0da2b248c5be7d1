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

import io
import struct
from functools import partial
from typing import Any

import h11
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from django.core.exceptions import ValidationError

from providers import claims
from providers.contract import CertificatesField, HTTPSField, UpstreamUnavailable
from providers.jwks import JWKSetReader, PublicKeysField, UnusableKey, parse_static_keys
from providers.oidc_id_token.discovery import DiscoveryReader
from providers.operator_login import endpoint
from providers.operator_login.password_decryption import decrypt_password
from providers.upstream import Response
from tenants.config_file.schema import parse_file
from tenants.config_file.yaml_loader import ConfigurationError
from tenants.secrets import key_material
from tests.support.hostile_requests import (
    BODIES,
    HTTP,
    JSON,
    JWS,
    PACKET,
    TOO_DEEP,
    Build,
    Call,
    Shapes,
    expect_error,
    list_of,
    text_of,
)
from tests.support.markers import skip_unless_installed
from tests.support.work import count_work

SMALLEST = 500
"""Characters; the largest input has four times as many, which is within the limits of most readers."""

MORE = 2.3
"""How much the growth of the work may grow where the input doubles."""

SLACK = 200
"""Instructions by which two runs of the same may differ, such as those that find a cache full."""
RSA_KEY = generate_private_key(65537, 2048)


def encoded(build: Build) -> Build:
    return lambda size: build(size).encode()


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
    "an answer that never ends": (TOO_DEEP, expect_error(read_answer, UpstreamUnavailable)),
    "accounts": (
        text_of(ACCOUNT, '{"accounts":[', ACCOUNT.removesuffix(",") + "]}"),
        expect_error(read_accounts, UpstreamUnavailable),
    ),
    "a key set that never ends": (TOO_DEEP, expect_error(read_key_set, UpstreamUnavailable)),
    "a key set of keys": (list_of(KEY, '{"keys":[', "]}"), read_key_set),
    "a key set of a long key": (
        text_of("A", '{"keys":[{"kty":"RSA","kid":"a","e":"AQAB","n":"', '"}]}'),
        expect_error(read_key_set, UpstreamUnavailable),
    ),
    "a discovery document that never ends": (TOO_DEEP, expect_error(read_discovery, UpstreamUnavailable)),
    "a discovery document with a long address": (
        lambda size: f'{{"issuer":"https://a","jwks_uri":"https://{"[" * (size // 5)}"}}',
        expect_error(read_discovery, UpstreamUnavailable),
    ),
    "a head": (list_of("a#: b\r\n", HTTP_200, "\r\n", ""), read_http),
    "a head: white space": (text_of(" \t", f"{HTTP_200}a: b", "c\r\n\r\n"), read_http),
    "a head: folded": (text_of(" b\r\n", f"{HTTP_200}a: b\r\n", "\r\n"), read_http),
    "chunks": (text_of("1\r\na\r\n", CHUNKED), partial(read_http, packet=PACKET)),
    "chunks: an extension": (text_of(" ", f"{CHUNKED}1;", "\r\n"), read_http),
}
RADIUS: Shapes = {
    "attributes": (lambda size: b"\1\2" * (size // 2), read_radius),
    "of vendors": (lambda size: b"\x1a\x08abcd\1\2" * (size // 8), read_radius),
    "proofs": (lambda size: (b"\x50\x12" + bytes(16)) * (size // 18), read_radius),
}
LDAP: Shapes = {
    "a username in a filter": (text_of("*("), filter_for),
}


# What staff and operators enter


def read_entered(text: str) -> Any:
    return parse_static_keys("nagra", text, "key", ("RS256", "EdDSA"))


def read_file(text: str) -> Any:
    return parse_file(text.encode())


refuse_file = expect_error(read_file, ConfigurationError)
refuse_entered = expect_error(read_entered, UnusableKey)
refuse_certificates = expect_error(CertificatesField(max_length=None).clean, ValidationError)
refuse_secret = expect_error(partial(key_material.decode, encoding="base64"), ValidationError)
ENTERED: Shapes = {
    "PEM: no end": (text_of("A", "-----BEGIN PUBLIC KEY-----"), refuse_entered),
    "PEM: beginnings": (text_of("-----BEGIN PUBLIC KEY-----"), refuse_entered),
    "PEM: no key": (
        text_of("A\n", "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"),
        refuse_entered,
    ),
    "certificates: beginnings": (text_of("-----BEGIN CERTIFICATE-----"), refuse_certificates),
    "certificates: of another label": (text_of("-----BEGIN "), refuse_certificates),
    "a JWK Set that never ends": (text_of('"d"  ', '{"keys":['), PublicKeysField().clean),
    "an address": (
        text_of("[", "https://"),
        expect_error(HTTPSField(max_length=None).clean, ValidationError),
    ),
    "claims": (list_of("a#=b", "", "", "\n"), claims.RequiredClaimsField(max_length=None).clean),
    "base64": (text_of("A"), partial(key_material.decode, encoding="base64")),
    "base64: padding": (text_of("="), refuse_secret),
    "an encrypted password": (
        text_of("A "),
        lambda text: decrypt_password(text, RSA_KEY, "oaep_sha256"),
    ),
}

# Files of configuration

YAML: Shapes = {
    "entries": (list_of("- id: t#\n", "tenants:\n", "", ""), read_file),
    "entries of a tenant": (
        list_of("{kid: k#, secret: {text: a}}", "tenants: [{id: a, keys: [", "]}]"),
        read_file,
    ),
    "entries with errors": (list_of("- {id: t#, x: 1}\n", "tenants:\n", "", ""), refuse_file),
    "unknown members": (list_of("x#: 1", "tenants: [{id: a, ", "}]"), refuse_file),
    "members of another type": (text_of("1,", "tenants: [{id: a, allowed_origins: [", "1]}]"), refuse_file),
    "members of a secret": (
        list_of("x#: 1", "tenants: [{id: a, keys: [{kid: k, secret: {", "}}]}]"),
        refuse_file,
    ),
    "names": (list_of("n#: 1\n", "", "", ""), refuse_file),
    "a long name": (text_of("a", "? ", "\n: [1, 2]\n"), refuse_file),
    "a list in a line": (text_of("1,", "[", "1]"), refuse_file),
    "quotation marks": (text_of("''", "a: '"), refuse_file),
    "escapes": (text_of("\\x41", 'a: "', '"'), refuse_file),
    "a block": (text_of(" a\n", "a: |\n"), refuse_file),
    "empty lines": (text_of("\n", "a: b", "c: d"), refuse_file),
    "lists in lists": (text_of("- "), refuse_file),
    "anchors": (list_of("- &a# [*a#]\n", "", "", ""), refuse_file),
    "comments": (text_of("#\n"), refuse_file),
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
