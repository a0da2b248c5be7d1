"""The provider `ldap`, with a real slapd and with fake servers."""

from __future__ import annotations

import re
import ssl
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from providers.contract import (
    Account,
    CheckResult,
    Choice,
    FailureReason,
    Identity,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import strategies
from tenants.models import Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.ldap import (
    ALICE,
    BIND,
    OTHER,
    RING,
    SEARCH_DONE,
    cleaned,
    fake_ldap_server,
    respond_with,
    result,
    verify,
    with_tls,
)
from tests.support.markers import skip_unless_installed
from tests.support.paths import CASES
from tests.support.upstream.slapd import BASE, PASSWORD, SERVICE_PASSWORD, Slapd, settings_at
from tests.support.waiting import wait_until

pytestmark = skip_unless_installed(
    programs={"slapd": "apt-get install slapd"},
    modules={"ldap": "pip install --require-hashes -r requirements/ldap.txt"},
)


# username, settings that differ, account
ACCEPTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "over LDAPS": ("alice", {}, "A-1"),
    "over StartTLS": ("alice", {"transport": "starttls"}, "A-1"),
    "by the name of the server": ("alice", {"host": "localhost"}, "A-1"),
    "in another case, as the directory ignores case": ("ALICE", {}, "A-1"),
    "with special characters of filters": ("star*(fish)\\", {}, "A-5"),
    "an account of any script": ("dora", {}, "ä ö ü 😀"),
    "by another filter": (
        "alice@operator.example",
        {"user_filter": "(&(objectClass=person)(|(mail={username})(telephoneNumber=0)))"},
        "A-1",
    ),
    "by another attribute": ("alice", {"account_attribute": "MAIL"}, "alice@operator.example"),
    "an account that is not suspended": (
        "alice",
        {"status_attribute": "employeeType", "suspended_value": "suspended"},
        "A-1",
    ),
    "an account without status": (
        "dora",
        {"status_attribute": "employeeType", "suspended_value": "x"},
        "ä ö ü 😀",
    ),
    "without a service account": (
        "eve",
        {"bind_dn": "", "bind_password": "", "search_base": "ou=open,dc=operator,dc=example"},
        "A-20",
    ),
}


@pytest.mark.parametrize(("username", "settings", "account"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(directory: Slapd, username: str, settings: dict[str, Any], account: str) -> None:
    identity = verify(username, PASSWORD, directory.settings(**settings))
    assert identity == Identity(account)


def test_several_accounts_yield_a_choice(directory: Slapd) -> None:
    choice = verify("carol", PASSWORD, directory.settings(account_attribute="carLicense"))
    assert choice == Choice((Account("A-3a", "A-3a"), Account("A-3b", "A-3b")))


UNKNOWN = FailureReason.CREDENTIAL_UNKNOWN
INVALID = FailureReason.IDENTITY_INVALID
SUSPENDED = {"status_attribute": "employeeType", "suspended_value": "suspended"}
REJECTED: dict[str, tuple[str, str, dict[str, Any], FailureReason]] = {
    "a wrong password": ("alice", "wrong", {}, UNKNOWN),
    "the password in capitals": ("alice", PASSWORD.upper(), {}, UNKNOWN),
    "the password and more": ("alice", PASSWORD + "\0x", {}, UNKNOWN),
    "an unknown user": ("nobody", PASSWORD, {}, UNKNOWN),
    "no username": ("", PASSWORD, {}, UNKNOWN),
    "a star": ("*", PASSWORD, {}, UNKNOWN),
    "a username that closes the filter": ("alice)(uid=*", PASSWORD, {}, UNKNOWN),
    "an escaped username": (r"\61lice", PASSWORD, {}, UNKNOWN),
    "a username with NUL": ("alice\0", PASSWORD, {}, UNKNOWN),
    "a lone surrogate": ("alice\ud800", PASSWORD, {}, UNKNOWN),
    "a password with a lone surrogate": ("alice", "\ud800", {}, UNKNOWN),
    "two entries of that name": ("twin", PASSWORD, {}, UNKNOWN),
    "three entries of that name": ("triplet", PASSWORD, {}, UNKNOWN),
    "an entry without a password": ("no password", PASSWORD, {}, UNKNOWN),
    "an entry outside the base": ("eve", PASSWORD, {}, UNKNOWN),
    "the service account": ("ags", SERVICE_PASSWORD, {"user_filter": "(cn={username})"}, UNKNOWN),
    "a suspended account": ("bob", PASSWORD, SUSPENDED, FailureReason.ACCOUNT_SUSPENDED),
    "a suspended account, and a wrong password": ("bob", "wrong", SUSPENDED, UNKNOWN),
    "an entry without an account": ("without account", PASSWORD, {}, INVALID),
    "an account that is not UTF-8": ("photo", PASSWORD, {"account_attribute": "audio"}, INVALID),
    "an account with a line break": ("control", PASSWORD, {}, INVALID),
    "an account of 256 characters": ("long", PASSWORD, {}, INVALID),
    "51 accounts": ("crowd", PASSWORD, {"account_attribute": "carLicense"}, INVALID),
}


@pytest.mark.parametrize(("username", "password", "settings", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejects(
    directory: Slapd, username: str, password: str, settings: dict[str, Any], reason: FailureReason
) -> None:
    with pytest.raises(VerificationFailed) as raised:
        verify(username, password, directory.settings(**settings))
    assert raised.value.reason is reason


def last_connection_log(directory: Slapd, since: int) -> list[str]:
    """Return the log lines of the last accepted connection by operation, after it is closed.

    slapd logs a result after it has sent it: the next request, and the end of the connection, may come first.
    """
    lines: list[str] = []

    def is_closed() -> bool:
        log = directory.log[since:]
        accepted = re.findall(r"(conn=\d+) fd=\d+ ACCEPT", log)
        # Connections without a bind are readiness checks.
        ours = [number for number in accepted if f"{number} op=0 BIND" in log]
        lines[:] = [line for line in log.splitlines() if ours and f" {ours[-1]} " in line]
        text = "\n".join(lines)
        requested = set(re.findall(r"op=(\d+) (?:BIND|SRCH)", text))
        completed = set(re.findall(r"op=(\d+) (?:SEARCH )?RESULT", text))
        return " closed" in text and requested == completed

    wait_until(is_closed, "the directory does not log the end of the connection")
    return sorted(lines, key=lambda line: int("".join(re.findall(r" op=(\d+) ", line)) or -1))


def log_of_failed_sign_on(directory: Slapd, username: str, password: str) -> list[str]:
    """Return the operations and results in the log of a failed sign-on, without names."""
    before = len(directory.log)
    with pytest.raises(VerificationFailed):
        verify(username, password, directory.settings())
    lines = [line.split() for line in last_connection_log(directory, before)]
    kinds = {"BIND", "SRCH", "RESULT", "SEARCH"}
    return [
        " ".join(word for word in line if word in kinds or word.startswith(("err=", "op=")))
        for line in lines
        if kinds & set(line)
    ]


def test_an_unknown_user_causes_the_same_requests_as_a_wrong_password(directory: Slapd) -> None:
    wrong = log_of_failed_sign_on(directory, "alice", "wrong")
    assert [line for line in wrong if "err=49" in line]
    assert log_of_failed_sign_on(directory, "nobody", "wrong") == wrong
    assert log_of_failed_sign_on(directory, "twin", "wrong") == wrong


def test_an_empty_password_is_rejected_without_a_request(directory: Slapd) -> None:
    first = log_of_failed_sign_on(directory, "alice", "wrong")
    before = len(directory.log)
    with pytest.raises(VerificationFailed):
        verify("alice", "", directory.settings())
    # Connections are accepted and logged in order.
    assert log_of_failed_sign_on(directory, "alice", "wrong") == first
    assert directory.log[before:].count("ACCEPT") == 1


def test_check_reports_success(directory: Slapd) -> None:
    found = list(strategies()["ldap"].check(cleaned(directory.settings()), RING))
    assert [result.message for result in found] == [
        f"127.0.0.1:{directory.tls} uses TLS with a trusted certificate for this name.",
        f"The service account may search under {BASE}.",
    ]
    assert all(result.passed for result in found)


def test_check_reports_failures(directory: Slapd) -> None:
    found: list[CheckResult] = []
    with pytest.raises(UpstreamUnavailable, match="no such search base"):
        found.extend(strategies()["ldap"].check(cleaned(directory.settings(search_base=OTHER)), RING))
    with pytest.raises(UpstreamUnavailable, match="credentials"):
        list(strategies()["ldap"].check(cleaned(directory.settings(bind_password="wrong")), RING))


BAD_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "no host": ("host", {"host": ""}),
    "a host with a path": ("host", {"host": "ldap.example/x"}),
    "an address with a scheme": ("host", {"host": "ldap://ldap.example"}),
    "no port": ("port", {"port": 0}),
    "clear text": ("transport", {"transport": "ldap"}),
    "an account without a password": ("bind_password", {"bind_password": ""}),
    "a password without an account": ("bind_password", {"bind_dn": ""}),
    "a bind name that is a single word": ("bind_dn", {"bind_dn": "ags"}),
    "an account without a domain": ("bind_dn", {"bind_dn": "ags@"}),
    "an account of a domain without a name": ("bind_dn", {"bind_dn": "CORP\\"}),
    "an account of two domains": ("bind_dn", {"bind_dn": "CORP\\ags@corp.example"}),
    "an account with a line break": ("bind_dn", {"bind_dn": "ags@corp.example\nx"}),
    "an account with NUL": ("bind_dn", {"bind_dn": "ags\0@corp.example"}),
    "a bind name with a lone surrogate": ("bind_dn", {"bind_dn": "\ud800@corp.example"}),
    "an account of 501 characters": ("bind_dn", {"bind_dn": f"{'x' * 488}@corp.example"}),
    "no base": ("search_base", {"search_base": ""}),
    "a base that is not a DN": ("search_base", {"search_base": "people"}),
    "a filter without the username": ("user_filter", {"user_filter": "(uid=alice)"}),
    "a filter without an end": ("user_filter", {"user_filter": "(uid={username}"}),
    "a filter and more": ("user_filter", {"user_filter": "(uid={username})(x=y)"}),
    "a filter with the username as an attribute": ("user_filter", {"user_filter": "({username}=x)"}),
    "a filter with one of two usernames as an attribute": (
        "user_filter",
        {"user_filter": "(|(uid={username})({username}=x))"},
    ),
    "two usernames without an end": ("user_filter", {"user_filter": "(|(uid={username})(mail={username})"}),
    "a filter of 501 characters": ("user_filter", {"user_filter": f"(uid={{username}}{'x' * 485})"}),
    "a filter with NUL": ("user_filter", {"user_filter": "(uid={username}\0)"}),
    "an attribute with a star": ("account_attribute", {"account_attribute": "*"}),
    "a status without a value": ("suspended_value", {"status_attribute": "x"}),
    "a value without a status": ("suspended_value", {"suspended_value": "x"}),
}


@pytest.mark.parametrize(("field", "changes"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_invalid_settings_are_rejected(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        cleaned(settings_at(636, **changes))
    assert all(message.startswith(f"{field}: ") for message in raised.value.messages), raised.value.messages


def test_discovery_and_checkservice(
    directory: Slapd, nagra: HeadEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    create_service(directory.settings())
    listed = {
        one["authServiceName"]: one["endpoints"] for one in nagra.discover().json()["availableServices"]
    }
    sign_on, *_ = listed["Directory"]
    assert (sign_on["name"], sign_on["path"]) == ("SIGNON", "/signOn")
    parameters = {
        one["name"]: (one["mandatory"], one["isPassword"]) for one in sign_on["parameterProperties"]
    }
    assert parameters == {"Username": (True, False), "Password": (True, True)}
    call_command("checkservice", "nagra", "Directory")
    assert "ok   The service account may search" in capsys.readouterr().out


def test_sign_on_with_a_choice_of_accounts(directory: Slapd, nagra: HeadEnd) -> None:
    create_service(directory.settings(account_attribute="carLicense"))
    headers = {"x_auth_service_id": "Directory"}
    app = ClientApp(nagra)
    responses = [app.call("/ags/signOn", proof("carol", word), **headers) for word in ("wrong", "", PASSWORD)]
    assert [response.status_code for response in responses] == [401, 401, 300]
    unknown = app.call("/ags/signOn", proof("nobody", PASSWORD), x_correlation_id="c", **headers)
    wrong = app.call("/ags/signOn", proof("carol", "wrong"), x_correlation_id="c", **headers)
    assert (unknown.content, unknown.headers) == (wrong.content, wrong.headers)
    (first, second) = responses[-1].json()["accounts"]
    assert (first["accountInformation"], second["accountInformation"]) == ("A-3a", "A-3b")
    chosen = app.call("/ags/subsequentSignOn", {}, user_token=second["userAccountToken"], **headers)
    assert (chosen.status_code, chosen.json()["accountId"]) == (201, "A-3b")


EITHER, OF_AD = (CASES / "07-ldap-two-places-for-the-name/filters.txt").read_text().splitlines()
BY_EITHER: dict[str, tuple[str, str, tuple[int, str]]] = {
    "the name": (EITHER, "frank", (201, "A-18")),
    "the mail address, which is escaped": (EITHER, "frank*", (201, "A-18")),
    "a star as a wildcard": (EITHER, "fran*", (401, "not_authenticated")),
    "a name of one entry and address of another": (
        EITHER,
        "mail of another",
        (401, "not_authenticated"),
    ),
    "the longest name in the most placeholders": (
        f"(|{'(a={username})' * 35})",
        "😀" * 255,
        (401, "not_authenticated"),
    ),
    "the name in Active Directory": (OF_AD, "FRANK", (201, "A-18")),
    "the address in Active Directory": (OF_AD, "frank@corp.example", (201, "A-18")),
    "an entry of another class": (OF_AD, "alice", (401, "not_authenticated")),
}


@pytest.mark.parametrize(("user_filter", "username", "expected"), BY_EITHER.values(), ids=BY_EITHER)
def test_07_every_username_placeholder_in_a_filter_is_replaced(
    directory: Slapd, nagra: HeadEnd, user_filter: str, username: str, expected: tuple[int, str]
) -> None:
    create_service(directory.settings(user_filter=user_filter))
    response = sign_on(nagra, username)
    parameters = response.json()["accountId" if response.status_code == 201 else "reason"]
    assert (response.status_code, parameters) == expected


BIND_NAMES = (CASES / "08-ldap-service-account-of-ad/bind-names.txt").read_text().splitlines()


@pytest.mark.parametrize("name", [*BIND_NAMES, f"{'x' * 487}@corp.example"], ids=lambda name: name[:20])
def test_08_the_bind_name_is_sent_unchanged(nagra: HeadEnd, name: str) -> None:
    heard: list[bytes] = []

    def serve(wire: ssl.SSLSocket) -> None:
        heard.append(wire.recv(65536))
        wire.sendall(result(1, BIND))
        respond_with(ALICE + result(2, SEARCH_DONE), result(3, BIND))(wire)

    with fake_ldap_server(with_tls(serve)) as settings:
        create_service({**settings, "bind_dn": name})
        response = sign_on(nagra, "alice")
    assert (response.status_code, response.json()["accountId"]) == (201, "A-1")
    # A simple bind (RFC 4511, section 4.2): the name as an octet string, then the password.
    length = bytes([len(name)]) if len(name) < 128 else b"\x82" + len(name).to_bytes(2, "big")
    assert b"\x04" + length + name.encode() + b"\x80" in heard[0]


def create_service(settings: dict[str, Any]) -> None:
    Service(
        tenant_id="nagra",
        name="Directory",
        strategy="ldap",
        display_name="x",
        enabled=True,
        settings=settings,
    ).save()


def sign_on(nagra: HeadEnd, username: str) -> Any:
    return ClientApp(nagra).call("/ags/signOn", proof(username, PASSWORD), x_auth_service_id="Directory")


def proof(username: str, password: str) -> dict[str, Any]:
    parameters = [{"name": "username", "value": username}, {"name": "password", "value": password}]
    return {"parameters": parameters, "deviceInformation": {"deviceType": "Android"}}
