"""The provider `token_introspection`, with a real `oidc-provider` and with fake responses."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.core.exceptions import ValidationError

from ags.server.logs import JSONFormatter
from providers.contract import CheckResult, FailureReason, Identity, UpstreamFailure, UpstreamUnavailable
from providers.token_introspection.strategy import TokenIntrospection
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.token_introspection import RING, SECRET, cleaned, get_reason, verify
from tests.support.upstream.https import HTTPSServer, Reply, as_json


def from_now(seconds: float) -> Any:
    """Return a function that adds `seconds` to the time of the response."""
    return lambda now: now + seconds


NULL: Any = object()

GOOD = {"active": True, "token_type": "Bearer", "sub": "account-1"}

# members that differ from a valid response, settings
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the minimum": ({}, {}),
    "a token type in lower case": ({"token_type": "bearer"}, {}),
    "no token type, if_present": ({"token_type": None}, {"token_type": "if_present"}),
    "an audience among others": ({"aud": ["tv", "ags"]}, {"audience": "ags"}),
    "an audience, not checked": ({"aud": 5}, {}),
    "valid times": ({"exp": from_now(60), "nbf": from_now(-60)}, {}),
    "an exp of 0": ({"exp": 0}, {}),
    "an exp of 0.0": ({"exp": 0.0}, {}),
    "members of null": ({"exp": NULL, "nbf": NULL, "cnf": NULL, "client_id": NULL, "aud": NULL}, {}),
    "a token type of null, if_present": ({"token_type": NULL}, {"token_type": "if_present"}),
    "scopes in an array": ({"scope": ["openid", "tv"]}, {"scope": "tv openid"}),
    "fractions": ({"exp": from_now(60.5), "nbf": from_now(-60.5)}, {}),
    "times within the skew": ({"exp": from_now(-20), "nbf": from_now(20)}, {}),
    "another client": ({"client_id": "television"}, {}),
    "an account of 255 characters": ({"sub": "ä" * 255}, {}),
    "an account that is a number": ({"sub": 5}, {}),
    "an account with punctuation": ({"sub": " a/b=c'; -- é 😀"}, {}),
    "anything else": ({"anything": {"at": ["all"]}}, {}),
}

WRONG_MEMBERS: dict[str, tuple[dict[str, Any], dict[str, Any], FailureReason, str | None]] = {
    "not active": ({"active": False}, {}, FailureReason.TOKEN_INACTIVE, None),
    "active in quotes": ({"active": "true"}, {}, FailureReason.TOKEN_INACTIVE, None),
    "active as a number": ({"active": 1}, {}, FailureReason.TOKEN_INACTIVE, None),
    "no active": ({"active": None}, {}, FailureReason.TOKEN_INACTIVE, None),
    "no type": ({"token_type": None}, {}, FailureReason.CLAIM_MISSING, "token_type"),
    "another token type": ({"token_type": "DPoP"}, {}, FailureReason.TYPE_MISMATCH, "token_type"),
    "another token type, if_present": (
        {"token_type": "refresh_token"},
        {"token_type": "if_present"},
        FailureReason.TYPE_MISMATCH,
        "token_type",
    ),
    "a type that is no text": ({"token_type": 1}, {}, FailureReason.CLAIM_INVALID, "token_type"),
    "a bound key": ({"cnf": {"jkt": "x"}}, {}, FailureReason.TYPE_MISMATCH, "cnf"),
    "expired": ({"exp": from_now(-60)}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "expired, no skew": ({"exp": from_now(-1)}, {"clock_skew": 0}, FailureReason.TOKEN_EXPIRED, "exp"),
    "exp in milliseconds": ({"exp": from_now(1e12)}, {}, FailureReason.LIFETIME_TOO_LONG, "exp"),
    "exp in quotes": ({"exp": "2000000000"}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp true": ({"exp": True}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp of 400 digits": ({"exp": 10**400}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "not yet valid": ({"nbf": from_now(3600)}, {}, FailureReason.TOKEN_NOT_YET_VALID, "nbf"),
    "nbf in quotes": ({"nbf": "0"}, {}, FailureReason.CLAIM_INVALID, "nbf"),
    "no issuer": ({}, {"issuer": "https://a"}, FailureReason.CLAIM_MISSING, "iss"),
    "an issuer with a slash": (
        {"iss": "https://a/"},
        {"issuer": "https://a"},
        FailureReason.ISSUER_MISMATCH,
        "iss",
    ),
    "issuers": ({"iss": ["https://a"]}, {"issuer": "https://a"}, FailureReason.CLAIM_INVALID, "iss"),
    "a part of an audience": ({"aud": "ags2"}, {"audience": "ags"}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "no audience": ({"aud": []}, {"audience": "ags"}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "an audience and a number": (
        {"aud": ["ags", 1]},
        {"audience": "ags"},
        FailureReason.CLAIM_INVALID,
        "aud",
    ),
    "an audience that is an object": (
        {"aud": {"ags": 1}},
        {"audience": "ags"},
        FailureReason.CLAIM_INVALID,
        "aud",
    ),
    "a part of a scope": ({"scope": "tv2"}, {"scope": "tv"}, FailureReason.CLAIM_MISMATCH, "scope"),
    "one scope of two": ({"scope": "tv"}, {"scope": "tv vod"}, FailureReason.CLAIM_MISMATCH, "scope"),
    "a scope in an array, and a number": (
        {"scope": ["tv", 1]},
        {"scope": "tv"},
        FailureReason.CLAIM_INVALID,
        "scope",
    ),
    "an array without the scope": (
        {"scope": ["a tv"]},
        {"scope": "tv"},
        FailureReason.CLAIM_MISMATCH,
        "scope",
    ),
    "a scope that is an object": (
        {"scope": {"tv": 1}},
        {"scope": "tv"},
        FailureReason.CLAIM_INVALID,
        "scope",
    ),
    "a scope of null": ({"scope": NULL}, {"scope": "tv"}, FailureReason.CLAIM_MISSING, "scope"),
    "an account of null": ({"sub": NULL}, {}, FailureReason.CLAIM_MISSING, "sub"),
    "a token type of null": ({"token_type": NULL}, {}, FailureReason.CLAIM_MISSING, "token_type"),
    "active null": ({"active": NULL}, {}, FailureReason.TOKEN_INACTIVE, None),
    "an empty cnf": ({"cnf": {}}, {}, FailureReason.TYPE_MISMATCH, "cnf"),
    "exp false": ({"exp": False}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp of one second": ({"exp": 1}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "exp before the epoch": ({"exp": -1}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "another tenant": ({"t": "sunrise"}, {"tenant_member": "t"}, FailureReason.TENANT_MISMATCH, "t"),
    "a tenant in capitals": ({"t": "NAGRA"}, {"tenant_member": "t"}, FailureReason.TENANT_MISMATCH, "t"),
    "no tenant": ({}, {"tenant_member": "t"}, FailureReason.CLAIM_MISSING, "t"),
    "a tenant that is a number": ({"t": 1}, {"tenant_member": "t"}, FailureReason.CLAIM_INVALID, "t"),
    "no account": ({"sub": None}, {}, FailureReason.CLAIM_MISSING, "sub"),
    "an account that is true": ({"sub": True}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "an account that is too large a number": ({"sub": 2**53}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "the client for an account, both numbers": (
        {"sub": 5, "client_id": 5},
        {},
        FailureReason.CLAIM_MISMATCH,
        "sub",
    ),
    "the client for an account, as text": (
        {"sub": 5, "client_id": "5"},
        {},
        FailureReason.CLAIM_MISMATCH,
        "sub",
    ),
    "the client for an account, as a number": (
        {"sub": "5", "client_id": 5},
        {},
        FailureReason.CLAIM_MISMATCH,
        "sub",
    ),
    "an empty account": ({"sub": ""}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "an account of 256 characters": ({"sub": "a" * 256}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "an account with a line break": ({"sub": "a\nb"}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "the client for an account": ({"client_id": "account-1"}, {}, FailureReason.CLAIM_MISMATCH, "sub"),
}


def introspection(members: dict[str, Any]) -> Reply:
    """Return an introspection response. Members that are None are omitted; NULL becomes null."""
    now = int(time.time())
    said = {name: value(now) if callable(value) else value for name, value in (GOOD | members).items()}
    cleaned_settings = {name: value for name, value in said.items() if value is not None}
    return as_json({name: None if value is NULL else value for name, value in cleaned_settings.items()})


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("members", "settings"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(server: HTTPSServer, members: dict[str, Any], settings: dict[str, Any]) -> None:
    server.replies["/i"] = introspection(members)
    assert verify("t", address=f"{server.url}/i", **settings) == Identity(
        str(members.get("sub", "account-1"))
    )


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(
    ("members", "settings", "expected", "claim"), WRONG_MEMBERS.values(), ids=WRONG_MEMBERS
)
def test_rejects(
    server: HTTPSServer,
    members: dict[str, Any],
    settings: dict[str, Any],
    expected: FailureReason,
    claim: str | None,
) -> None:
    server.replies["/i"] = introspection(members)
    assert get_reason("t", address=f"{server.url}/i", **settings) == (expected, claim)


OUTAGES = {
    "401": (Reply(401), UpstreamFailure.CREDENTIALS_REJECTED),
    "403": (Reply(403), UpstreamFailure.CREDENTIALS_REJECTED),
    "429": (Reply(429), UpstreamFailure.UNREACHABLE),
    "500": (Reply(500), UpstreamFailure.UNREACHABLE),
    "503": (as_json(GOOD, 503), UpstreamFailure.UNREACHABLE),
    "400": (Reply(400), UpstreamFailure.RESPONSE_INVALID),
    "400 with another error": (
        as_json({"error": "invalid_request"}, 400),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "400 with an active token": (as_json(GOOD, 400), UpstreamFailure.RESPONSE_INVALID),
    "404": (Reply(404), UpstreamFailure.RESPONSE_INVALID),
    "201": (as_json(GOOD, 201), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(302, headers={"Location": "/other"}), UpstreamFailure.RESPONSE_INVALID),
    "an empty response": (Reply(200), UpstreamFailure.RESPONSE_INVALID),
    "HTML": (Reply(200, b"<html>"), UpstreamFailure.RESPONSE_INVALID),
    "an array": (as_json([GOOD]), UpstreamFailure.RESPONSE_INVALID),
    "true": (as_json(True), UpstreamFailure.RESPONSE_INVALID),
    "a duplicate member": (
        Reply(200, b'{"active": false, "active": true, "sub": "a"}'),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "deep nesting": (
        Reply(200, b'{"active": true, "a": ' + b"[" * 2000 + b"]" * 2000 + b"}"),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "Latin-1": (
        Reply(200, '{"active": true, "sub": "é"}'.encode("latin-1")),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "a lone surrogate": (
        Reply(200, b'{"active": true, "sub": "\\ud800"}'),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "a large response": (Reply(200, b" " * 70_000), UpstreamFailure.RESPONSE_TOO_LARGE),
}


@pytest.mark.parametrize(("reply", "expected"), OUTAGES.values(), ids=OUTAGES)
def test_an_invalid_response_makes_the_upstream_unavailable(
    server: HTTPSServer, reply: Reply, expected: UpstreamFailure
) -> None:
    server.replies["/i"] = reply
    with pytest.raises(UpstreamUnavailable) as raised:
        verify("t", address=f"{server.url}/i")
    assert raised.value.failure is expected


def test_responses_are_not_cached(server: HTTPSServer) -> None:
    answers = iter([introspection({}), introspection({"active": False}), introspection({})])
    server.replies["/i"] = lambda _: next(answers)
    assert verify("t", address=f"{server.url}/i") == Identity("account-1")
    assert get_reason("t", address=f"{server.url}/i")[0] is FailureReason.TOKEN_INACTIVE
    assert verify("t", address=f"{server.url}/i") == Identity("account-1")


@pytest.mark.parametrize("token", ["", "a\nb", "a\r\n\r\nb", "a\x00b", "é", "\x7f", "a\tb", "\U0001f600"])
def test_a_malformed_token_is_not_introspected(server: HTTPSServer, token: str) -> None:
    server.replies["/i"] = introspection({})
    assert get_reason(token, address=f"{server.url}/i") == (FailureReason.MALFORMED, None)
    assert not server.requests


@pytest.mark.parametrize("token", ["a&token=b&active=true", "a b+c%20", "a=b;c", '"', "~" * 8192])
def test_the_token_is_sent_unchanged_in_the_form(server: HTTPSServer, token: str) -> None:
    server.replies["/i"] = introspection({})
    verify(token, address=f"{server.url}/i?of=nagra")
    (asked,) = server.requests
    assert (asked.method, asked.path) == ("POST", "/i?of=nagra"), "the token is not in the URL"
    form = parse_qs(asked.body.decode(), keep_blank_values=True, strict_parsing=True)
    assert form == {"token": [token], "token_type_hint": ["access_token"]}
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["accept"] == "application/json"


def test_client_id_and_secret_are_form_encoded(server: HTTPSServer) -> None:
    """RFC 6749, section 2.3.1: a colon in the client ID would divide the pair elsewhere."""
    server.replies["/i"] = introspection({})
    verify("t", address=f"{server.url}/i", client_id="a:b", client_secret="c: +%")
    settings = {"client_authentication": "client_secret_post", "token_type_hint": ""}
    verify("t", address=f"{server.url}/i", client_id="a:b", client_secret="c: +%", **settings)
    basic, post = server.requests
    pair = base64.b64decode(basic.headers["authorization"].removeprefix("Basic "))
    assert pair == b"a%3Ab:c%3A+%2B%25"
    assert "authorization" not in post.headers
    assert parse_qs(post.body.decode()) == {"token": ["t"], "client_id": ["a:b"], "client_secret": ["c: +%"]}


CHECKED = {
    "inactive": ({"active": False}, {"scope": "tv"}, [True]),
    "active": ({}, {"scope": "tv"}, [False]),
    "no active": ({"active": None}, {"audience": "ags"}, [False]),
    "neither audience nor scope": ({"active": False}, {}, [True, None]),
}


@pytest.mark.parametrize(("members", "settings", "good"), CHECKED.values(), ids=CHECKED)
def test_check_introspects_an_unknown_token(
    server: HTTPSServer, members: dict[str, Any], settings: dict[str, Any], good: list[bool | None]
) -> None:
    server.replies["/i"] = introspection(members)
    cleaned_settings = cleaned(address=f"{server.url}/i", **settings)
    results: list[CheckResult] = [
        *TokenIntrospection().check(cleaned_settings, RING),
        *TokenIntrospection().check(cleaned_settings, RING),
    ]
    assert [result.passed for result in results] == good * 2
    assert server.address in results[0].message
    assert SECRET not in repr(results)
    tokens = {parse_qs(asked.body.decode())["token"][0] for asked in server.requests}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


BAD_SETTINGS: list[tuple[str, Any]] = [
    ("address", "http://login.example/i"),
    ("address", ""),
    ("client_id", ""),
    ("client_id", "a" * 256),
    ("client_id", "a\nb"),
    ("client_id", "é"),
    ("client_secret", ""),
    ("client_secret", "é"),
    ("client_authentication", "none"),
    ("token_type_hint", "refresh_token"),
    ("token_type", ""),
    ("issuer", "a" * 501),
    ("audience", "a" * 501),
    ("scope", "a" * 501),
    ("account_member", ""),
    ("account_member", "a" * 101),
    ("tenant_member", "a" * 101),
    ("clock_skew", -1),
    ("clock_skew", 301),
    ("deadline", 11),
    ("session_token_ttl", 3601),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
def test_invalid_settings_are_rejected(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        cleaned(**{name: value})


def test_neither_token_nor_secret_is_logged_or_returned(
    server: HTTPSServer, nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {
        "address": f"{server.url}/i",
        "client_id": "ags",
        "client_secret": SECRET,
        **server.settings,
    }
    Service(
        tenant_id=nagra.tenant_id,
        name="Tokens",
        strategy="token_introspection",
        settings=settings,
        display_name="x",
        enabled=True,
    ).save()
    body = {"parameters": [{"name": "accessToken", "value": "t-marker4711"}]}
    replies = [
        (introspection({"sub": "account-marker4711"}), 200),
        (introspection({"active": False}), 401),
        (introspection({"exp": 1, "sub": "marker4711"}), 401),
        (Reply(401, b"marker4711"), 503),
        (Reply(200, b"marker4711"), 503),
    ]
    for server.replies["/i"], status in replies:
        answer = nagra.post(body, x_auth_service_id="Tokens")
        assert answer.status_code == status, answer.content
        assert "marker4711" not in answer.content.decode()
    assert len(server.requests) == len(replies)
    lines = [JSONFormatter().format(record) for record in caplog.records]
    assert len(lines) >= len(replies)
    assert not [line for line in lines if "marker4711" in line]
