"""The provider `operator_login`: valid and invalid responses of the endpoint, and encrypted passwords."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from django.core.exceptions import ValidationError

from providers.contract import (
    Account,
    CheckResult,
    Choice,
    FailureReason,
    Identity,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.operator_login.strategy import OperatorLogin
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.support.clients import HeadEnd
from tests.support.operator_login import (
    KEY,
    MARKER,
    ONE,
    PEM,
    RING,
    SECRET,
    accepts_one_password,
    accounts,
    cleaned_settings,
    encrypted,
    get_reason,
    pem,
    stored,
    verify,
)
from tests.support.paths import ROOT
from tests.support.upstream.authority import authority
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.process import Lines, stop_process

TWO = {"accountId": "account-2", "accountInformation": "Cabin"}


def get_failure(server: HTTPSServer) -> UpstreamUnavailable:
    with pytest.raises(UpstreamUnavailable) as raised:
        verify(server, "anna", "p")
    return raised.value


def numbered(count: int) -> list[dict[str, str]]:
    return [{"accountId": f"{number}{'ü' * 250}", "accountInformation": "ü" * 255} for number in range(count)]


ACCEPTED = {
    "one account": (accounts(ONE), Identity("account-1")),
    "a number": (accounts({"accountId": 4711}), Identity("4711")),
    "one without information": (accounts({"accountId": "account-1"}), Identity("account-1")),
    "other members": (as_json({"accounts": [ONE | {"x": [1]}], "y": {}}), Identity("account-1")),
    "two": (accounts(ONE, TWO), Choice((Account("account-1", "Home"), Account("account-2", "Cabin")))),
    "two of the same information": (
        accounts(ONE, {**TWO, "accountInformation": "Home"}),
        Choice((Account("account-1", "Home"), Account("account-2", "Home"))),
    ),
    "one of two without information": (
        accounts(ONE, {"accountId": "account-2"}),
        Choice((Account("account-1", "Home"), Account("account-2", "account-2"))),
    ),
    "the maximum number, with the longest information": (
        accounts(*numbered(50)),
        Choice(tuple(Account(one["accountId"], one["accountInformation"]) for one in numbered(50))),
    ),
}

REJECTED = {
    "wrong credentials": (as_json({"reason": "invalid_credentials"}, 401), FailureReason.CREDENTIAL_UNKNOWN),
    "no account": (accounts(), FailureReason.CREDENTIAL_UNKNOWN),
    "suspended": (as_json({"reason": "account_suspended"}, 403), FailureReason.ACCOUNT_SUSPENDED),
    "cancelled": (as_json({"reason": "account_cancelled"}, 403), FailureReason.ACCOUNT_CANCELLED),
}

OUTAGES = {
    "401 without reason": (Reply(401), UpstreamFailure.CREDENTIALS_REJECTED),
    "401 of a proxy": (Reply(401, b"<html>"), UpstreamFailure.CREDENTIALS_REJECTED),
    "401 for another reason": (
        as_json({"reason": "account_suspended"}, 401),
        UpstreamFailure.CREDENTIALS_REJECTED,
    ),
    "401 with reasons": (
        as_json({"reason": ["invalid_credentials"]}, 401),
        UpstreamFailure.CREDENTIALS_REJECTED,
    ),
    "403 without reason": (Reply(403), UpstreamFailure.CREDENTIALS_REJECTED),
    "403 for another reason": (
        as_json({"reason": "invalid_credentials"}, 403),
        UpstreamFailure.CREDENTIALS_REJECTED,
    ),
    "400": (as_json({"reason": "invalid_credentials"}, 400), UpstreamFailure.RESPONSE_INVALID),
    "404": (Reply(404), UpstreamFailure.RESPONSE_INVALID),
    "201": (as_json({"accounts": [ONE]}, 201), UpstreamFailure.RESPONSE_INVALID),
    "204": (Reply(204), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(307, headers={"Location": "/login"}), UpstreamFailure.RESPONSE_INVALID),
    "429": (Reply(429), UpstreamFailure.UNREACHABLE),
    "500": (as_json({"accounts": [ONE]}, 500), UpstreamFailure.UNREACHABLE),
    "an empty response": (Reply(200), UpstreamFailure.RESPONSE_INVALID),
    "no JSON": (Reply(200, b"{'accounts': []}"), UpstreamFailure.RESPONSE_INVALID),
    "accounts twice": (Reply(200, b'{"accounts": [], "accounts": []}'), UpstreamFailure.RESPONSE_INVALID),
    "an array": (as_json([ONE]), UpstreamFailure.RESPONSE_INVALID),
    "no accounts": (as_json({}), UpstreamFailure.RESPONSE_INVALID),
    "accounts null": (as_json({"accounts": None}), UpstreamFailure.RESPONSE_INVALID),
    "accounts an object": (as_json({"accounts": ONE}), UpstreamFailure.RESPONSE_INVALID),
    "an account in an array": (accounts(["account-1"]), UpstreamFailure.RESPONSE_INVALID),
    "an account as text": (accounts("account-1"), UpstreamFailure.RESPONSE_INVALID),
    "an account without ID": (accounts({"accountInformation": "Home"}), UpstreamFailure.RESPONSE_INVALID),
    **{
        f"an ID of {value}": (accounts({"accountId": value}), UpstreamFailure.RESPONSE_INVALID)
        for value in (2**53, -1, 1.5, True, None)
    },
    "a number and the same number as text": (
        accounts({"accountId": 1}, {"accountId": "1"}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "an empty ID": (accounts({"accountId": ""}), UpstreamFailure.RESPONSE_INVALID),
    "an ID of 256 characters": (accounts({"accountId": "a" * 256}), UpstreamFailure.RESPONSE_INVALID),
    "an ID with a line break": (accounts({"accountId": "a\nb"}), UpstreamFailure.RESPONSE_INVALID),
    "information that is null": (
        accounts(ONE, {"accountId": "b", "accountInformation": None}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "an empty information": (
        accounts(ONE, {"accountId": "b", "accountInformation": ""}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "an account twice": (accounts(ONE, {**TWO, "accountId": "account-1"}), UpstreamFailure.RESPONSE_INVALID),
    "too many": (accounts(*numbered(51)), UpstreamFailure.RESPONSE_INVALID),
    "a large response": (Reply(200, b" " * (256 * 1024 + 1)), UpstreamFailure.RESPONSE_TOO_LARGE),
}


@pytest.mark.parametrize(("reply", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(server: HTTPSServer, reply: Reply, expected: Identity | Choice) -> None:
    server.replies["/login"] = reply
    assert verify(server, "anna", "p") == expected


@pytest.mark.parametrize(("reply", "expected"), REJECTED.values(), ids=REJECTED)
def test_rejects(server: HTTPSServer, reply: Reply, expected: FailureReason) -> None:
    server.replies["/login"] = reply
    assert get_reason(server, "anna", "p") is expected


@pytest.mark.parametrize(("reply", "expected"), OUTAGES.values(), ids=OUTAGES)
def test_an_invalid_response_makes_the_upstream_unavailable(
    server: HTTPSServer, reply: Reply, expected: UpstreamFailure
) -> None:
    server.replies["/login"] = reply
    assert get_failure(server).failure is expected


@pytest.mark.parametrize(("username", "password"), [("", "p"), ("anna", "")])
def test_empty_credentials_are_rejected_without_a_request(
    server: HTTPSServer, username: str, password: str
) -> None:
    server.replies["/login"] = accounts(ONE)
    assert get_reason(server, username, password) is FailureReason.CREDENTIAL_UNKNOWN
    assert not server.requests


@pytest.mark.parametrize("text", ["anna", "Änna", ' " \\ }', "a\r\nX: y", "\u202e😀", "x" * 255, "*", "a b "])
def test_username_and_password_are_forwarded_unchanged(server: HTTPSServer, text: str) -> None:
    server.replies["/login"] = accounts(ONE)
    verify(server, text, text)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/login")
    assert json.loads(request.body) == {"tenant": "nagra", "username": text, "password": text}
    assert request.headers["content-type"] == "application/json"


AUTHENTICATION = {
    "basic": ({}, "Basic " + base64.b64encode(f"ags:{SECRET}".encode()).decode()),
    "bearer": ({"authentication": "bearer", "secret": "abc.def=="}, "Bearer abc.def=="),
    "none": ({"authentication": "none", "user": "", "secret": ""}, None),
}


@pytest.mark.parametrize(("settings", "header"), AUTHENTICATION.values(), ids=AUTHENTICATION)
def test_ags_authenticates_to_the_endpoint(
    server: HTTPSServer, settings: dict[str, Any], header: str | None
) -> None:
    server.replies["/login"] = accounts(ONE)
    verify(server, "anna", "p", **settings)
    assert server.requests[0].headers.get("authorization") == header


BAD_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "no address": ("address", {"address": ""}),
    "an address without TLS": ("address", {"address": "http://login.example/"}),
    "another proof": ("authentication", {"authentication": "digest"}),
    "no user": ("user", {"user": ""}),
    "a user with a colon": ("user", {"user": "a:b"}),
    "a user of two lines": ("user", {"user": "a\nb"}),
    "a user of 256 characters": ("user", {"user": "a" * 256}),
    "no secret": ("secret", {"secret": ""}),
    "a secret of two lines": ("secret", {"secret": "a\r\nX: y"}),
    "a secret of 1025 characters": ("secret", {"secret": "a" * 1025}),
    "bearer without a secret": ("secret", {"authentication": "bearer", "secret": ""}),
    "bearer with a space": ("secret", {"authentication": "bearer", "secret": "a b"}),
    "another encryption": ("encryption", {"encryption": "rot13"}),
    "another padding": ("padding", {"padding": "none"}),
    "no key": ("private_key", {"encryption": "decrypt"}),
    "an invalid key": ("private_key", {"private_key": f"{MARKER}"}),
    "a public key": ("private_key", {"private_key": authority().certificate}),
    "a key of another kind": ("private_key", {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}),
    "a short key": ("private_key", {"private_key": pem(rsa.generate_private_key(65537, 1024))}),
    "an encrypted key": ("private_key", {"private_key": pem(KEY, BestAvailableEncryption(b"x"))}),
    "a key of 8193 characters": ("private_key", {"private_key": PEM + " " * (8193 - len(PEM))}),
    "a deadline of zero": ("deadline", {"deadline": 0}),
}


@pytest.mark.parametrize(("name", "settings"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_invalid_settings_are_rejected(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"^{{'settings': \\['{name}: ") as raised:
        clean_settings(OperatorLogin(), stored(**settings))
    assert MARKER not in str(raised.value)


def test_neither_secret_nor_key_is_rendered() -> None:
    given = stored(encryption="decrypt", private_key=PEM)
    page = OperatorLogin.Settings(given).as_p()
    assert MARKER not in page
    assert "PRIVATE KEY" not in page
    assert 'name="private_key"' in page


CHECKED = {
    "a rejection": (
        accepts_one_password,
        {},
        [(True, "accepts the credentials of AGS and rejects an unknown subscriber.")],
    ),
    "AGS decrypts": (
        accepts_one_password,
        {"encryption": "decrypt", "private_key": PEM},
        [(True, "an RSA key of 2048 bits"), (True, "rejects an unknown subscriber.")],
    ),
    "an endpoint that accepts anybody": (accounts(ONE), {}, [(False, "anybody could sign on")]),
    "another reason": (as_json({"reason": "account_suspended"}, 403), {}, [(False, "account_suspended")]),
}


@pytest.mark.parametrize(("reply", "settings", "expected"), CHECKED.values(), ids=CHECKED)
def test_check_logs_in_as_an_unknown_subscriber(
    server: HTTPSServer, reply: Any, settings: dict[str, Any], expected: list[tuple[bool, str]]
) -> None:
    server.replies["/login"] = reply
    strategy = OperatorLogin()
    cleaned = cleaned_settings(address=f"{server.url}/login", **settings)
    results: list[CheckResult] = list(strategy.check(cleaned, RING))
    for result, (good, values) in zip(results, expected, strict=True):
        assert result.passed is good
        assert values in result.message
        assert MARKER not in result.message
    assert server.address in results[-1].message
    list(strategy.check(cleaned, RING))
    names = {json.loads(request.body)["username"] for request in server.requests}
    assert len(names) == 2, "the name is random"


def test_check_reports_rejected_credentials_of_ags(server: HTTPSServer) -> None:
    server.replies["/login"] = Reply(401)
    strategy = OperatorLogin()
    cleaned = cleaned_settings(address=f"{server.url}/login")
    with pytest.raises(UpstreamUnavailable, match="rejects the credentials"):
        list(strategy.check(cleaned, RING))


@pytest.fixture(scope="module")
def example() -> Iterator[str]:
    """The URL of the example endpoint."""
    ca = authority()
    words = ["--certificate", str(ca.server_certificate), "--key", str(ca.server_key), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "operator_login.py"), *words],
        env=os.environ | {"LOGIN_SECRET": "of the example"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        lines = Lines(process.stdout)
        try:
            yield lines.next().strip()
        finally:
            stop_process(process)
            lines.close()


EXAMPLES: dict[tuple[str, str], Any] = {
    ("anna", "anna's password"): Identity("account-1"),
    ("bert", "bert's password"): Choice((Account("account-1", "Home"), Account("account-2", "Cabin"))),
    ("carl", "carl's password"): FailureReason.ACCOUNT_SUSPENDED,
    ("carl", "anna's password"): FailureReason.CREDENTIAL_UNKNOWN,
    ("anna", "bert's password"): FailureReason.CREDENTIAL_UNKNOWN,
    ("nobody", "anna's password"): FailureReason.CREDENTIAL_UNKNOWN,
}


@pytest.mark.parametrize(("pair", "expected"), EXAMPLES.items(), ids=map(" ".join, EXAMPLES))
def test_the_example_endpoint(example: str, pair: tuple[str, str], expected: Any) -> None:
    strategy = OperatorLogin()
    cleaned = cleaned_settings(address=example, secret="of the example")
    try:
        values: Any = strategy.verify(dict(zip(("Username", "Password"), pair, strict=True)), cleaned, RING)
    except VerificationFailed as raised:
        values = raised.reason
    assert values == expected
    assert [result.passed for result in strategy.check(cleaned, RING)] == [True]
    wrong_secret = cleaned_settings(address=example, secret="another")
    with pytest.raises(UpstreamUnavailable, match="rejects the credentials"):
        strategy.verify(dict(zip(("Username", "Password"), pair, strict=True)), wrong_secret, RING)


def test_no_secret_in_results_errors_and_logs(server: HTTPSServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    replies = [
        accounts({"accountId": MARKER}),
        accounts({"accountId": f"{MARKER}\n"}),
        accounts({"accountId": MARKER, "accountInformation": MARKER}, {"accountId": f"{MARKER}2"}),
        as_json({"reason": MARKER}, 401),
        as_json({"reason": "account_cancelled", "x": MARKER}, 403),
        Reply(200, MARKER.encode()),
        Reply(500, MARKER.encode()),
    ]
    settings = {"encryption": "decrypt", "private_key": PEM}
    for server.replies["/login"] in replies:
        for password in (MARKER, encrypted(MARKER.encode(), "oaep_sha256")):
            try:
                values = repr(verify(server, f"anna-{MARKER}", password, **settings))
            except (VerificationFailed, UpstreamUnavailable) as error:
                values = f"{error} {error!r} {error.__context__!r} {error.__cause__!r}"
            assert MARKER not in values
    assert len(server.requests) == 2 * len(replies)
    assert not [record for record in caplog.records if MARKER in f"{record.getMessage()} {record.__dict__}"]


def test_discovery_lists_username_and_password(nagra: HeadEnd) -> None:
    Service(
        tenant_id=nagra.tenant_id,
        name="Login",
        strategy="operator_login",
        settings=stored(),
        display_name="x",
        enabled=True,
    ).save()
    services = nagra.discover().json()["availableServices"]
    (service,) = [one for one in services if one["authServiceName"] == "Login"]
    sign_on, *others = service["endpoints"]
    assert [one["name"] for one in (sign_on, *others)] == ["SIGNON", "SUBSEQUENT_SIGNON", "SIGNOUT"]
    values = [(one["name"], one["mandatory"], one["isPassword"]) for one in sign_on["parameterProperties"]]
    assert values == [("Username", True, False), ("Password", True, True)]
