"""The operator's login: the operator judges, and whatever his endpoint does, nothing slips through."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from django.core.exceptions import ValidationError

from providers.contract import (
    Account,
    CheckResult,
    Choice,
    FailureReason,
    Identity,
    KeyRing,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.operator_login.strategy import OperatorLogin
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.conftest import HeadEnd
from tests.upstream.authority import authority
from tests.upstream.deadlines import LONG, LONGEST
from tests.upstream.https import Asked, HTTPSServer, Reply, as_json
from tests.upstream.process import Lines, end

ROOT = Path(__file__).resolve().parents[2]
RING = KeyRing("nagra", {})
MARKER = "marker4711"
SECRET = f"a secret: {MARKER} ü"
ONE = {"accountId": "account-1", "accountInformation": "Home"}
TWO = {"accountId": "account-2", "accountInformation": "Cabin"}


def pem(key: Any, encryption: Any = None) -> str:
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return raw.decode()


KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
PEM = pem(KEY)


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def stored(**settings: Any) -> dict[str, Any]:
    good = {"address": "https://localhost/login", "user": "ags", "secret": SECRET}
    return good | {"ca_certificates": authority().certificate, "deadline": LONGEST} | settings


def cleaned_of(**settings: Any) -> Any:
    return {**clean_settings(OperatorLogin(), stored(**settings))[1], "deadline": LONG}


def verify(server: HTTPSServer, username: str, password: str, **settings: Any) -> Identity | Choice:
    strategy = OperatorLogin()
    cleaned = cleaned_of(address=f"{server.url}/login", **settings)
    return strategy.verify({"Username": username, "Password": password}, cleaned, RING)


def refusal(server: HTTPSServer, username: str, password: str, **settings: Any) -> FailureReason:
    with pytest.raises(VerificationFailed) as refused:
        verify(server, username, password, **settings)
    assert refused.value.claim is None
    return refused.value.reason


def outage(server: HTTPSServer) -> UpstreamUnavailable:
    with pytest.raises(UpstreamUnavailable) as unavailable:
        verify(server, "anna", "p")
    return unavailable.value


def accounts(*told: Any) -> Reply:
    return as_json({"accounts": list(told)})


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
    "as many as may be, with the longest names": (
        accounts(*numbered(50)),
        Choice(tuple(Account(one["accountId"], one["accountInformation"]) for one in numbered(50))),
    ),
}

REFUSED = {
    "wrong credentials": (as_json({"reason": "invalid_credentials"}, 401), FailureReason.CREDENTIAL_UNKNOWN),
    "no account": (accounts(), FailureReason.CREDENTIAL_UNKNOWN),
    "suspended": (as_json({"reason": "account_suspended"}, 403), FailureReason.ACCOUNT_SUSPENDED),
    "cancelled": (as_json({"reason": "account_cancelled"}, 403), FailureReason.ACCOUNT_CANCELLED),
}

OUTAGES = {
    "401 that says nothing": (Reply(401), UpstreamFailure.CREDENTIALS_REJECTED),
    "401 of a proxy": (Reply(401, b"<html>"), UpstreamFailure.CREDENTIALS_REJECTED),
    "401 for another reason": (
        as_json({"reason": "account_suspended"}, 401),
        UpstreamFailure.CREDENTIALS_REJECTED,
    ),
    "401 with reasons": (
        as_json({"reason": ["invalid_credentials"]}, 401),
        UpstreamFailure.CREDENTIALS_REJECTED,
    ),
    "403 that says nothing": (Reply(403), UpstreamFailure.CREDENTIALS_REJECTED),
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
    "nothing": (Reply(200), UpstreamFailure.RESPONSE_INVALID),
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
    "more than may be": (accounts(*numbered(51)), UpstreamFailure.RESPONSE_INVALID),
    "too much": (Reply(200, b" " * (256 * 1024 + 1)), UpstreamFailure.RESPONSE_TOO_LARGE),
}


@pytest.mark.parametrize(("reply", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(server: HTTPSServer, reply: Reply, expected: Identity | Choice) -> None:
    server.replies["/login"] = reply
    assert verify(server, "anna", "p") == expected


@pytest.mark.parametrize(("reply", "expected"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(server: HTTPSServer, reply: Reply, expected: FailureReason) -> None:
    server.replies["/login"] = reply
    assert refusal(server, "anna", "p") is expected


@pytest.mark.parametrize(("reply", "expected"), OUTAGES.values(), ids=OUTAGES)
def test_what_is_no_answer_leaves_it_open(
    server: HTTPSServer, reply: Reply, expected: UpstreamFailure
) -> None:
    server.replies["/login"] = reply
    assert outage(server).failure is expected


@pytest.mark.parametrize(("username", "password"), [("", "p"), ("anna", "")])
def test_a_blank_is_refused_as_a_wrong_one_and_the_operator_is_not_asked(
    server: HTTPSServer, username: str, password: str
) -> None:
    server.replies["/login"] = accounts(ONE)
    assert refusal(server, username, password) is FailureReason.CREDENTIAL_UNKNOWN
    assert not server.asked


@pytest.mark.parametrize("text", ["anna", "Änna", ' " \\ }', "a\r\nX: y", "\u202e😀", "x" * 255, "*", "a b "])
def test_username_and_password_arrive_as_they_were_typed(server: HTTPSServer, text: str) -> None:
    server.replies["/login"] = accounts(ONE)
    verify(server, text, text)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/login")
    assert json.loads(asked.body) == {"tenant": "nagra", "username": text, "password": text}
    assert asked.headers["content-type"] == "application/json"


PROOFS = {
    "basic": ({}, "Basic " + base64.b64encode(f"ags:{SECRET}".encode()).decode()),
    "bearer": ({"authentication": "bearer", "secret": "abc.def=="}, "Bearer abc.def=="),
    "none": ({"authentication": "none", "user": "", "secret": ""}, None),
}


@pytest.mark.parametrize(("settings", "header"), PROOFS.values(), ids=PROOFS)
def test_the_gate_proves_to_the_endpoint_who_it_is(
    server: HTTPSServer, settings: dict[str, Any], header: str | None
) -> None:
    server.replies["/login"] = accounts(ONE)
    verify(server, "anna", "p", **settings)
    assert server.asked[0].headers.get("authorization") == header


# What a client app does.
PADDED = {
    "oaep_sha256": OAEP(MGF1(SHA256()), SHA256(), None),
    "oaep_sha256_mgf1_sha1": OAEP(MGF1(SHA1()), SHA256(), None),
    "oaep_sha1": OAEP(MGF1(SHA1()), SHA1(), None),
    "pkcs1v15": PKCS1v15(),
}


def encrypted(password: bytes, padding: str, key: rsa.RSAPrivateKey = KEY) -> str:
    return base64.b64encode(key.public_key().encrypt(password, PADDED[padding])).decode()


def knows_anna(asked: Asked) -> Reply:
    """An endpoint that knows one password, and no username."""
    right = json.loads(asked.body)["password"] == "ännas password"
    return accounts(ONE) if right else as_json({"reason": "invalid_credentials"}, 401)


@pytest.mark.parametrize("padding", PADDED)
def test_an_encrypted_password_is_decrypted_and_passed_on(server: HTTPSServer, padding: str) -> None:
    server.replies["/login"] = knows_anna
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = encrypted("ännas password".encode(), padding)
    lines = "\r\n".join(sent[at : at + 76] for at in range(0, len(sent), 76))
    for spelling in (sent, lines, sent + "\n"):
        assert verify(server, "anna", spelling, **settings) == Identity("account-1")


def beginning_with_zero(password: bytes, padding: str) -> bytes:
    """Return a ciphertext whose first octet is zero, as one of some 200 is."""
    for _ in range(20_000):
        if (sent := base64.b64decode(encrypted(password, padding)))[0] == 0:
            return sent
    raise AssertionError("no such ciphertext")


@pytest.mark.parametrize("padding", PADDED)
def test_an_encrypted_password_may_lack_the_zero_octets_that_it_begins_with(
    server: HTTPSServer, padding: str
) -> None:
    server.replies["/login"] = knows_anna
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = beginning_with_zero("ännas password".encode(), padding)
    for octets in (sent, sent.lstrip(b"\0")):
        assert verify(server, "anna", base64.b64encode(octets).decode(), **settings) == Identity("account-1")


def test_an_encrypted_password_is_passed_on_as_it_is_where_the_operator_decrypts(server: HTTPSServer) -> None:
    server.replies["/login"] = accounts(ONE)
    sent = encrypted(b"p", "pkcs1v15")
    verify(server, "anna", sent, encryption="pass_on", padding="pkcs1v15", private_key=PEM)
    assert json.loads(server.asked[0].body)["password"] == sent


def longer(sent: str) -> str:
    return base64.b64encode(b"\x00" + base64.b64decode(sent)).decode()


# What comes in place of an encrypted password.
UNDECIPHERABLE = {
    "of another key": lambda padding: encrypted(b"p", padding, OTHER_KEY),
    "of another padding": lambda padding: encrypted(
        b"p", "oaep_sha1" if padding == "oaep_sha256" else "oaep_sha256"
    ),
    "random": lambda _: base64.b64encode(bytes([0]) + os.urandom(255)).decode(),
    "zero": lambda _: base64.b64encode(bytes(256)).decode(),
    "more than the modulus": lambda _: base64.b64encode(b"\xff" * 256).decode(),
    "too short": lambda _: base64.b64encode(b"p").decode(),
    "without its last octet": lambda padding: base64.b64encode(
        base64.b64decode(encrypted("ännas password".encode(), padding))[:-1]
    ).decode(),
    "too long": lambda padding: longer(encrypted(b"p", padding)),
    "in the clear": lambda _: "ännas password",
    "no base64": lambda padding: encrypted(b"p", padding)[:-3],
    "a sign that is no base64": lambda padding: "!" + encrypted("ännas password".encode(), padding),
    "base64url": lambda _: "-_" * 128,
    "no UTF-8": lambda padding: encrypted(b"\xff\xfe", padding),
    "empty": lambda padding: encrypted(b"", padding),
    "spaces": lambda _: " ",
}


@pytest.mark.parametrize("padding", PADDED)
@pytest.mark.parametrize("case", UNDECIPHERABLE)
def test_what_cannot_be_decrypted_goes_the_way_of_a_wrong_password(
    server: HTTPSServer, case: str, padding: str
) -> None:
    """The operator is asked with a password that nobody has: nothing tells a padding from a password."""
    server.replies["/login"] = knows_anna
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = UNDECIPHERABLE[case](padding)
    assert (
        refusal(server, "anna", encrypted(b"wrong", padding), **settings) is FailureReason.CREDENTIAL_UNKNOWN
    )
    for _ in range(2):
        assert refusal(server, "anna", sent, **settings) is FailureReason.CREDENTIAL_UNKNOWN
    wrong, *junk = [json.loads(asked.body)["password"] for asked in server.asked]
    assert (wrong, len(junk)) == ("wrong", 2)
    for password in junk:
        assert password
        assert password not in {sent, "p", "ännas password"}


@pytest.mark.parametrize("between", ["\n", "\r\n", " ", ""], ids=repr)
def test_a_key_is_read_even_if_a_form_has_taken_away_its_lines(server: HTTPSServer, between: str) -> None:
    """A field for a secret is one line; browsers drop line breaks that are pasted into it."""
    server.replies["/login"] = knows_anna
    settings = {"encryption": "decrypt", "private_key": PEM.replace("\n", between)}
    sent = encrypted("ännas password".encode(), "oaep_sha256")
    assert verify(server, "anna", sent, **settings) == Identity("account-1")


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
    "a bearer of no secret": ("secret", {"authentication": "bearer", "secret": ""}),
    "a bearer of two words": ("secret", {"authentication": "bearer", "secret": "a b"}),
    "another encryption": ("encryption", {"encryption": "rot13"}),
    "another padding": ("padding", {"padding": "none"}),
    "no key": ("private_key", {"encryption": "decrypt"}),
    "a key that is none": ("private_key", {"private_key": f"{MARKER}"}),
    "a public key": ("private_key", {"private_key": authority().certificate}),
    "a key of another kind": ("private_key", {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}),
    "a short key": ("private_key", {"private_key": pem(rsa.generate_private_key(65537, 1024))}),
    "an encrypted key": ("private_key", {"private_key": pem(KEY, BestAvailableEncryption(b"x"))}),
    "a key of 8193 characters": ("private_key", {"private_key": PEM + " " * (8193 - len(PEM))}),
    "no patience": ("deadline", {"deadline": 0}),
}


@pytest.mark.parametrize(("name", "settings"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_its_settings_have_bounds(name: str, settings: dict[str, Any]) -> None:
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
    "it refuses": (knows_anna, {}, [(True, "refuses a subscriber that nobody knows, as it should")]),
    "it decrypts nothing, and AGS does": (
        knows_anna,
        {"encryption": "decrypt", "private_key": PEM},
        [(True, "an RSA key of 2048 bits"), (True, "as it should")],
    ),
    "it lets anybody in": (accounts(ONE), {}, [(False, "lets anybody in")]),
    "it confuses": (as_json({"reason": "account_suspended"}, 403), {}, [(False, "account_suspended")]),
}


@pytest.mark.parametrize(("reply", "settings", "expected"), CHECKED.values(), ids=CHECKED)
def test_checking_logs_in_as_nobody(
    server: HTTPSServer, reply: Any, settings: dict[str, Any], expected: list[tuple[bool, str]]
) -> None:
    server.replies["/login"] = reply
    strategy = OperatorLogin()
    cleaned = cleaned_of(address=f"{server.url}/login", **settings)
    found: list[CheckResult] = list(strategy.check(cleaned, RING))
    for finding, (good, told) in zip(found, expected, strict=True):
        assert finding.passed is good
        assert told in finding.message
        assert MARKER not in finding.message
    assert server.address in found[-1].message
    list(strategy.check(cleaned, RING))
    names = {json.loads(asked.body)["username"] for asked in server.asked}
    assert len(names) == 2, "another name each time"


def test_checking_says_when_the_endpoint_refuses_the_gate(server: HTTPSServer) -> None:
    server.replies["/login"] = Reply(401)
    strategy = OperatorLogin()
    cleaned = cleaned_of(address=f"{server.url}/login")
    with pytest.raises(UpstreamUnavailable, match="rejects the credentials"):
        list(strategy.check(cleaned, RING))


@pytest.fixture(scope="module")
def example() -> Iterator[str]:
    """The address of the example of an endpoint, run as its page says."""
    words = ["--certificate", authority().server_certificate, "--key", authority().server_key, "--port", "0"]
    with subprocess.Popen(
        [sys.executable, ROOT / "examples" / "operator_login.py", *words],
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
            end(process)
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
def test_the_example_of_an_endpoint_judges(example: str, pair: tuple[str, str], expected: Any) -> None:
    strategy = OperatorLogin()
    cleaned = cleaned_of(address=example, secret="of the example")
    try:
        told: Any = strategy.verify(dict(zip(("Username", "Password"), pair, strict=True)), cleaned, RING)
    except VerificationFailed as refused:
        told = refused.reason
    assert told == expected
    assert [finding.passed for finding in strategy.check(cleaned, RING)] == [True]
    stranger = cleaned_of(address=example, secret="another")
    with pytest.raises(UpstreamUnavailable, match="rejects the credentials"):
        strategy.verify(dict(zip(("Username", "Password"), pair, strict=True)), stranger, RING)


def test_nothing_of_it_is_told_by_an_answer_an_error_or_a_log(
    server: HTTPSServer, caplog: pytest.LogCaptureFixture
) -> None:
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
                told = repr(verify(server, f"anna-{MARKER}", password, **settings))
            except (VerificationFailed, UpstreamUnavailable) as error:
                told = f"{error} {error!r} {error.__context__!r} {error.__cause__!r}"
            assert MARKER not in told
    assert len(server.asked) == 2 * len(replies)
    assert not [record for record in caplog.records if MARKER in f"{record.getMessage()} {record.__dict__}"]


def test_discovery_shows_what_to_type_and_what_to_hide(nagra: HeadEnd) -> None:
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
    told = [(one["name"], one["mandatory"], one["isPassword"]) for one in sign_on["parameterProperties"]]
    assert told == [("Username", True, False), ("Password", True, True)]
