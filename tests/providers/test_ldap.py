"""The directory: whom it knows is let in, and whatever it does otherwise lets nobody in."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from providers.contract import (
    Account,
    Choice,
    FailureReason,
    Identity,
    KeyRing,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import strategies
from providers.upstream import bulkhead
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests import needs
from tests.conftest import ClientApp, HeadEnd
from tests.upstream.authority import Authority, authority, stranger
from tests.upstream.deadlines import HASTY, LONG
from tests.upstream.slapd import BASE, PASSWORD, SERVICE_PASSWORD, Slapd, entry, person, settings_at, slapd
from tests.waiting import wait_until

pytestmark = needs(
    programs={"slapd": "apt-get install slapd"},
    modules={"ldap": "pip install --require-hashes -r requirements/ldap.txt"},
)

RING = KeyRing("nagra", {})
OTHER = "ou=elsewhere,dc=operator,dc=example"

ENTRIES = "".join(
    [
        person("alice", employeeNumber="A-1", employeeType="active", mail="alice@operator.example"),
        person("bob", employeeNumber="A-2", employeeType="SUSPENDED"),
        person("carol", employeeNumber="A-3", carLicense=["A-3b", "A-3a"]),
        person("dora", employeeNumber="ä ö ü 😀"),
        person("star*(fish)\\", employeeNumber="A-5"),
        person("without account"),
        person("twin 1", uid="twin", employeeNumber="A-7"),
        person("twin 2", uid="twin", employeeNumber="A-8"),
        person("triplet 1", uid="triplet", employeeNumber="A-9"),
        person("triplet 2", uid="triplet", employeeNumber="A-10"),
        person("triplet 3", uid="triplet", employeeNumber="A-11"),
        person("photo", audio=b"\xff\xfe"),
        person("control", employeeNumber="A\n1"),
        person("long", employeeNumber="A" * 256),
        person("huge", description="x" * 100_000),
        person("crowd", carLicense=[f"A-{number}" for number in range(51)]),
        person("no password", employeeNumber="A-15", userPassword=None),
        person("mail of another", employeeNumber="A-16"),
        person("other", employeeNumber="A-17", mail="mail of another"),
        person(
            "frank",
            "user",
            employeeNumber="A-18",
            mail="frank*",
            sAMAccountName="frank",
            userPrincipalName="frank@corp.example",
        ),
        entry(
            f"ou=referral,{BASE}",
            "referral",
            "extensibleObject",
            ou="referral",
            ref="ldap://127.0.0.1:1/dc=x",
        ),
        entry("ou=open,dc=operator,dc=example", "organizationalUnit", ou="open"),
        person("eve", employeeNumber="A-20").replace(
            f"cn=eve,{BASE}", "cn=eve,ou=open,dc=operator,dc=example"
        ),
    ]
)


@pytest.fixture(scope="module")
def directory() -> Iterator[Slapd]:
    with slapd(ENTRIES) as server:
        yield server


def cleaned(settings: dict[str, Any], deadline: float = LONG) -> Any:
    return {**clean_settings(strategies()["ldap"], settings)[1], "deadline": deadline}


def verify(
    username: str, password: str, settings: dict[str, Any], deadline: float = LONG
) -> Identity | Choice:
    parameters = {"Username": username, "Password": password}
    return strategies()["ldap"].verify(parameters, cleaned(settings, deadline), RING)


def outage(settings: dict[str, Any], username: str = "alice", deadline: float = LONG) -> UpstreamUnavailable:
    with pytest.raises(UpstreamUnavailable) as raised:
        verify(username, PASSWORD, settings, deadline)
    return raised.value


# the username, settings that differ, the account
ACCEPTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "over LDAPS": ("alice", {}, "A-1"),
    "over StartTLS": ("alice", {"transport": "starttls"}, "A-1"),
    "by the name of the server": ("alice", {"host": "localhost"}, "A-1"),
    "in capitals, as the directory does": ("ALICE", {}, "A-1"),
    "with a character for filters": ("star*(fish)\\", {}, "A-5"),
    "an account of any script": ("dora", {}, "ä ö ü 😀"),
    "by another filter": (
        "alice@operator.example",
        {"user_filter": "(&(objectClass=person)(|(mail={username})(telephoneNumber=0)))"},
        "A-1",
    ),
    "by another attribute": ("alice", {"account_attribute": "MAIL"}, "alice@operator.example"),
    "who is not suspended": (
        "alice",
        {"status_attribute": "employeeType", "suspended_value": "suspended"},
        "A-1",
    ),
    "who has no status": ("dora", {"status_attribute": "employeeType", "suspended_value": "x"}, "ä ö ü 😀"),
    "without a service account": (
        "eve",
        {"bind_dn": "", "bind_password": "", "search_base": "ou=open,dc=operator,dc=example"},
        "A-20",
    ),
}


@pytest.mark.parametrize(("username", "settings", "account"), ACCEPTED.values(), ids=ACCEPTED)
def test_whom_the_directory_knows_is_let_in(
    directory: Slapd, username: str, settings: dict[str, Any], account: str
) -> None:
    identity = verify(username, PASSWORD, directory.settings(**settings))
    assert identity == Identity(account)


def test_of_several_accounts_the_subscriber_chooses(directory: Slapd) -> None:
    choice = verify("carol", PASSWORD, directory.settings(account_attribute="carLicense"))
    assert choice == Choice((Account("A-3a", "A-3a"), Account("A-3b", "A-3b")))


UNKNOWN = FailureReason.CREDENTIAL_UNKNOWN
INVALID = FailureReason.IDENTITY_INVALID
SUSPENDED = {"status_attribute": "employeeType", "suspended_value": "suspended"}
REFUSED: dict[str, tuple[str, str, dict[str, Any], FailureReason]] = {
    "a wrong password": ("alice", "wrong", {}, UNKNOWN),
    "the password in capitals": ("alice", PASSWORD.upper(), {}, UNKNOWN),
    "the password and more": ("alice", PASSWORD + "\0x", {}, UNKNOWN),
    "an unknown user": ("nobody", PASSWORD, {}, UNKNOWN),
    "no username": ("", PASSWORD, {}, UNKNOWN),
    "a star": ("*", PASSWORD, {}, UNKNOWN),
    "a username that closes the filter": ("alice)(uid=*", PASSWORD, {}, UNKNOWN),
    "a username that is escaped already": (r"\61lice", PASSWORD, {}, UNKNOWN),
    "a username with NUL": ("alice\0", PASSWORD, {}, UNKNOWN),
    "half a character": ("alice\ud800", PASSWORD, {}, UNKNOWN),
    "a password of half a character": ("alice", "\ud800", {}, UNKNOWN),
    "two entries of that name": ("twin", PASSWORD, {}, UNKNOWN),
    "three entries of that name": ("triplet", PASSWORD, {}, UNKNOWN),
    "an entry without a password": ("no password", PASSWORD, {}, UNKNOWN),
    "an entry outside the base": ("eve", PASSWORD, {}, UNKNOWN),
    "the service account": ("ags", SERVICE_PASSWORD, {"user_filter": "(cn={username})"}, UNKNOWN),
    "a suspended account": ("bob", PASSWORD, SUSPENDED, FailureReason.ACCOUNT_SUSPENDED),
    "a suspended account, and a wrong password": ("bob", "wrong", SUSPENDED, UNKNOWN),
    "an entry without an account": ("without account", PASSWORD, {}, INVALID),
    "an account that is no text": ("photo", PASSWORD, {"account_attribute": "audio"}, INVALID),
    "an account with a line break": ("control", PASSWORD, {}, INVALID),
    "an account of 256 characters": ("long", PASSWORD, {}, INVALID),
    "51 accounts": ("crowd", PASSWORD, {"account_attribute": "carLicense"}, INVALID),
}


@pytest.mark.parametrize(("username", "password", "settings", "refusal"), REFUSED.values(), ids=REFUSED)
def test_nobody_else_is(
    directory: Slapd, username: str, password: str, settings: dict[str, Any], refusal: FailureReason
) -> None:
    with pytest.raises(VerificationFailed) as refused:
        verify(username, password, directory.settings(**settings))
    assert refused.value.reason is refusal


def of_the_last_connection(directory: Slapd, since: int) -> list[str]:
    """What the log has of the connection that was accepted last, once that is closed."""
    lines: list[str] = []

    def is_closed() -> bool:
        log = directory.log[since:]
        accepted = re.findall(r"(conn=\d+) fd=\d+ ACCEPT", log)
        # On others nobody binds: they looked whether the server is ready.
        ours = [number for number in accepted if f"{number} op=0 BIND" in log]
        lines[:] = [line for line in log.splitlines() if ours and f" {ours[-1]} " in line]
        return any(" closed" in line for line in lines)

    wait_until(is_closed, "the directory does not log that the connection is closed")
    return lines


def asked(directory: Slapd, username: str, password: str) -> list[str]:
    """What the directory was asked meanwhile, and what came of it: the words that do not name anybody."""
    before = len(directory.log)
    with pytest.raises(VerificationFailed):
        verify(username, password, directory.settings())
    lines = [line.split() for line in of_the_last_connection(directory, before)]
    kinds = {"BIND", "SRCH", "RESULT", "SEARCH"}
    return [
        " ".join(word for word in line if word in kinds or word.startswith(("err=", "op=")))
        for line in lines
        if kinds & set(line)
    ]


def test_an_unknown_user_costs_the_directory_what_a_wrong_password_does(directory: Slapd) -> None:
    wrong = asked(directory, "alice", "wrong")
    assert [line for line in wrong if "err=49" in line]
    assert asked(directory, "nobody", "wrong") == wrong
    assert asked(directory, "twin", "wrong") == wrong


def test_no_password_is_refused_before_the_directory_is_asked(directory: Slapd) -> None:
    first = asked(directory, "alice", "wrong")
    before = len(directory.log)
    with pytest.raises(VerificationFailed):
        verify("alice", "", directory.settings())
    # Connections are accepted, and logged, in the order in which they are made.
    assert asked(directory, "alice", "wrong") == first
    assert directory.log[before:].count("ACCEPT") == 1


# settings that differ, the username, the outage and a word of what staff are told
AWAY: dict[str, tuple[dict[str, Any], str, UpstreamFailure, str]] = {
    "does not accept the service account": (
        {"bind_password": "wrong"},
        "alice",
        UpstreamFailure.CREDENTIALS_REJECTED,
        "credentials",
    ),
    "does not know it": (
        {"bind_dn": f"cn=x,{BASE}"},
        "alice",
        UpstreamFailure.CREDENTIALS_REJECTED,
        "credentials",
    ),
    "lets nobody search": (
        {"bind_dn": "", "bind_password": ""},
        "alice",
        UpstreamFailure.RESPONSE_INVALID,
        "no such search base",
    ),
    "has no such base": (
        {"search_base": OTHER},
        "alice",
        UpstreamFailure.RESPONSE_INVALID,
        "no such search base",
    ),
    "refers to another server": (
        {"search_base": f"ou=referral,{BASE}"},
        "alice",
        UpstreamFailure.RESPONSE_INVALID,
        "another server",
    ),
    "says too much": (
        {"account_attribute": "description"},
        "huge",
        UpstreamFailure.RESPONSE_TOO_LARGE,
        "too large",
    ),
    "has another name": ({"host": "127.0.0.2"}, "alice", UpstreamFailure.UNREACHABLE, "reached"),
    "is trusted by others": (
        {"ca_certificates": stranger().certificate},
        "alice",
        UpstreamFailure.CERTIFICATE_UNTRUSTED,
        "certificate",
    ),
    "is trusted by none": (
        {"ca_certificates": ""},
        "alice",
        UpstreamFailure.CERTIFICATE_UNTRUSTED,
        "certificate",
    ),
}


@pytest.mark.parametrize(("settings", "username", "expected", "word"), AWAY.values(), ids=AWAY)
def test_a_directory_that(
    directory: Slapd, settings: dict[str, Any], username: str, expected: UpstreamFailure, word: str
) -> None:
    raised = outage(directory.settings(**settings), username)
    assert (raised.failure, word in str(raised)) == (expected, True), str(raised)


def test_a_directory_without_tls_is_told_nothing() -> None:
    with slapd(ENTRIES, tls=False) as directory:
        raised = outage(directory.settings(transport="starttls"))
        assert (raised.failure, str(raised)) == (UpstreamFailure.RESPONSE_INVALID, "it refuses StartTLS")
        assert outage(directory.settings(port=directory.clear)).failure is UpstreamFailure.UNREACHABLE
        assert "BIND" not in directory.log


@pytest.mark.parametrize("transport", ["ldaps", "starttls"])
def test_the_certificate_of_a_stranger_is_not_trusted(transport: str) -> None:
    with slapd(ENTRIES, vouched_for_by=stranger()) as directory:
        assert (
            outage(directory.settings(transport=transport)).failure is UpstreamFailure.CERTIFICATE_UNTRUSTED
        )
        assert "BIND" not in directory.log


def test_an_intermediate_authority_may_be_trusted_alone() -> None:
    lone = Authority(authority())
    with slapd(ENTRIES, vouched_for_by=lone) as directory:
        for transport in ("ldaps", "starttls"):
            trusting = {"transport": transport, "ca_certificates": lone.certificate}
            assert verify("alice", PASSWORD, directory.settings(**trusting)) == Identity("A-1")


def test_the_certificate_must_be_for_the_name_and_not_for_the_address(
    directory: Slapd, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "directory.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (
        outage(directory.settings(host="directory.example")).failure is UpstreamFailure.CERTIFICATE_UNTRUSTED
    )


def test_a_private_address_must_be_allowed(directory: Slapd, settings: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = []
    assert outage(directory.settings()).failure is UpstreamFailure.ADDRESS_FORBIDDEN


Behave = Callable[[socket.socket], None]


@contextmanager
def fake(behave: Behave) -> Iterator[dict[str, Any]]:
    """A server that does that with each connection; yields the settings of a service that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve(wire: socket.socket) -> None:
            with wire:
                wire.settimeout(LONG)  # longer than a test waits for the caller to hang up
                try:
                    behave(wire)
                    ended.wait(LONG)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    wire, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[wire], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield settings_at(listener.getsockname()[1])
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def under_tls(behave: Callable[[ssl.SSLSocket], None]) -> Behave:
    def serve(wire: socket.socket) -> None:
        with authority().server_context().wrap_socket(wire, server_side=True) as secured:
            behave(secured)
            while secured.recv(65536):  # until the caller hangs up
                pass

    return serve


def message(number: int, tag: int, *content: bytes) -> bytes:
    """An LDAP message (RFC 4511, section 4.1.1)."""
    body = b"".join(content)
    inner = bytes([0x02, 1, number, tag, len(body)]) + body
    return bytes([0x30, len(inner)]) + inner


def result(number: int, tag: int, code: int = 0) -> bytes:
    return message(number, tag, bytes([0x0A, 1, code, 0x04, 0, 0x04, 0]))


BIND, SEARCH_DONE, SEARCH_ENTRY, EXTENDED = 0x61, 0x65, 0x64, 0x78


def text(value: bytes, tag: int = 0x04) -> bytes:
    return bytes([tag, len(value)]) + value


def answering(*answers: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Answer each request with the next of these, then hang up."""

    def serve(wire: ssl.SSLSocket) -> None:
        for answer in answers:
            wire.recv(65536)
            wire.sendall(answer)
        wire.unwrap()

    return serve


def dripping(wire: ssl.SSLSocket) -> None:
    wire.sendall(b"\x30\x84\x00\x00\xff\xff")  # the beginning of a long message
    while True:
        time.sleep(0.05)
        wire.sendall(b"\x00")


ACCOUNT = text(text(text(b"employeeNumber") + text(text(b"A-1"), 0x31), 0x30), 0x30)
ALICE = message(2, SEARCH_ENTRY, text(b"cn=alice"), ACCOUNT)
NAMELESS = message(2, SEARCH_ENTRY, text(b""), ACCOUNT)
LATIN = message(2, SEARCH_ENTRY, text(b"cn=\xe9"), text(b"", 0x30))

NEVER_ANSWERS: dict[str, Behave] = {
    "says nothing": lambda wire: None,
    "says nothing under TLS": under_tls(lambda wire: None),
    "sends a byte now and then": under_tls(dripping),
    "answers another question": under_tls(answering(result(7, BIND), b"", b"")),
}

USELESS: dict[str, tuple[Behave, UpstreamFailure]] = {
    "speaks no TLS": (lambda wire: wire.sendall(b"SSH-2.0-x\r\n"), UpstreamFailure.RESPONSE_INVALID),
    "hangs up": (lambda wire: wire.close(), UpstreamFailure.UNREACHABLE),
    "says no LDAP": (under_tls(answering(b"\x30\x03no!")), UpstreamFailure.RESPONSE_INVALID),
    "promises a gigabyte": (
        under_tls(answering(b"\x30\x84\x40\x00\x00\x00" + b"x" * 70_000)),
        UpstreamFailure.RESPONSE_TOO_LARGE,
    ),
    "hangs up after the bind": (under_tls(answering(result(1, BIND))), UpstreamFailure.UNREACHABLE),
    "is busy": (under_tls(answering(result(1, BIND, 51))), UpstreamFailure.UNREACHABLE),
    "says what there is not": (under_tls(answering(result(1, BIND, 99))), UpstreamFailure.RESPONSE_INVALID),
    "refers elsewhere": (under_tls(answering(result(1, BIND, 10))), UpstreamFailure.RESPONSE_INVALID),
    "takes too long to search": (
        under_tls(answering(result(1, BIND), result(2, SEARCH_DONE, 3))),
        UpstreamFailure.TIMEOUT,
    ),
    "has a name in Latin-1": (
        under_tls(answering(result(1, BIND), LATIN + result(2, SEARCH_DONE))),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "hangs up when it sees a password": (
        under_tls(answering(result(1, BIND), ALICE + result(2, SEARCH_DONE))),
        UpstreamFailure.UNREACHABLE,
    ),
}


@pytest.mark.parametrize(("behave", "expected"), USELESS.values(), ids=USELESS)
def test_a_server_of_no_use_lets_nobody_in(behave: Behave, expected: UpstreamFailure) -> None:
    with fake(behave) as settings:
        assert outage(settings).failure is expected


def all_places_are_free() -> None:
    wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")


@pytest.mark.parametrize("behave", NEVER_ANSWERS.values(), ids=NEVER_ANSWERS)
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(behave: Behave) -> None:
    with fake(behave) as settings:
        assert outage(settings, deadline=HASTY).failure is UpstreamFailure.TIMEOUT
        all_places_are_free()  # the call has ended, and the server goes on


def test_what_is_said_before_tls_answers_nothing_that_is_asked_under_it() -> None:
    """An attacker between the two may append to the one answer that is in clear text."""

    def behave(wire: socket.socket) -> None:
        wire.recv(65536)
        found = message(3, SEARCH_ENTRY, text(b"cn=alice"), ACCOUNT) + result(3, SEARCH_DONE)
        wire.sendall(result(1, EXTENDED) + result(2, BIND) + found + result(4, BIND))
        under_tls(lambda secured: None)(wire)

    with fake(behave) as settings:
        assert outage({**settings, "transport": "starttls"}, deadline=HASTY).failure in {
            UpstreamFailure.TIMEOUT,
            UpstreamFailure.UNREACHABLE,
            UpstreamFailure.RESPONSE_INVALID,
        }


def test_one_that_knows_alice_lets_her_in() -> None:
    """Or what the servers of no use have in common would prove nothing."""
    good = under_tls(answering(result(1, BIND), ALICE + result(2, SEARCH_DONE), result(3, BIND)))
    with fake(good) as settings:
        assert verify("alice", PASSWORD, settings) == Identity("A-1")


def test_an_entry_without_a_name_is_not_bound_as_for_that_would_prove_nothing() -> None:
    lax = under_tls(answering(result(1, BIND), NAMELESS + result(2, SEARCH_DONE), result(3, BIND)))
    with fake(lax) as settings, pytest.raises(VerificationFailed):
        verify("alice", "wrong", settings)


def test_the_place_of_a_call_that_was_given_up_is_free_again() -> None:
    with fake(under_tls(dripping)) as settings:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM + 1):
            assert outage(settings, deadline=0.1).failure is UpstreamFailure.TIMEOUT
            all_places_are_free()


def test_trying_it_says_what_works(directory: Slapd) -> None:
    found = list(strategies()["ldap"].check(cleaned(directory.settings()), RING))
    assert [finding.message for finding in found] == [
        f"127.0.0.1:{directory.tls} speaks TLS, with a certificate that is trusted for this name.",
        f"The service account may search under {BASE}.",
    ]
    assert all(finding.passed for finding in found)


def test_trying_it_says_what_does_not_work(directory: Slapd) -> None:
    found = []
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
    "an account that is a mere word": ("bind_dn", {"bind_dn": "ags"}),
    "an account without a domain": ("bind_dn", {"bind_dn": "ags@"}),
    "an account of a domain without a name": ("bind_dn", {"bind_dn": "CORP\\"}),
    "an account of two domains": ("bind_dn", {"bind_dn": "CORP\\ags@corp.example"}),
    "an account with a line break": ("bind_dn", {"bind_dn": "ags@corp.example\nx"}),
    "an account with NUL": ("bind_dn", {"bind_dn": "ags\0@corp.example"}),
    "an account of half a character": ("bind_dn", {"bind_dn": "\ud800@corp.example"}),
    "an account of 501 characters": ("bind_dn", {"bind_dn": f"{'x' * 488}@corp.example"}),
    "no base": ("search_base", {"search_base": ""}),
    "a base that is no DN": ("search_base", {"search_base": "people"}),
    "a filter for everybody": ("user_filter", {"user_filter": "(uid=alice)"}),
    "a filter without an end": ("user_filter", {"user_filter": "(uid={username}"}),
    "a filter and more": ("user_filter", {"user_filter": "(uid={username})(x=y)"}),
    "a filter in which the username is an attribute": ("user_filter", {"user_filter": "({username}=x)"}),
    "a filter in which one of two usernames is": (
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
def test_settings_that_would_fail_later_are_refused_now(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        cleaned(settings_at(636, **changes))
    assert all(told.startswith(f"{field}: ") for told in refused.value.messages), refused.value.messages


def test_a_service_of_it_is_discovered_and_tried(
    directory: Slapd, nagra: HeadEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(directory.settings())
    listed = {
        one["authServiceName"]: one["endpoints"] for one in nagra.discover().json()["availableServices"]
    }
    sign_on, *_ = listed["Directory"]
    assert (sign_on["name"], sign_on["path"]) == ("SIGNON", "/signOn")
    told = {one["name"]: (one["mandatory"], one["isPassword"]) for one in sign_on["parameterProperties"]}
    assert told == {"Username": (True, False), "Password": (True, True)}
    call_command("checkservice", "nagra", "Directory")
    assert "ok   The service account may search" in capsys.readouterr().out


def test_a_subscriber_signs_on_and_chooses_an_account_on_the_way(directory: Slapd, nagra: HeadEnd) -> None:
    offer(directory.settings(account_attribute="carLicense"))
    told = {"x_auth_service_id": "Directory"}
    app = ClientApp(nagra)
    answers = [app.call("/ags/signOn", proof("carol", word), **told) for word in ("wrong", "", PASSWORD)]
    assert [answer.status_code for answer in answers] == [401, 401, 300]
    unknown = app.call("/ags/signOn", proof("nobody", PASSWORD), x_correlation_id="c", **told)
    wrong = app.call("/ags/signOn", proof("carol", "wrong"), x_correlation_id="c", **told)
    assert (unknown.content, unknown.headers) == (wrong.content, wrong.headers)
    (first, second) = answers[-1].json()["accounts"]
    assert (first["accountInformation"], second["accountInformation"]) == ("A-3a", "A-3b")
    chosen = app.call("/ags/subsequentSignOn", {}, user_token=second["userAccountToken"], **told)
    assert (chosen.status_code, chosen.json()["accountId"]) == (201, "A-3b")


CASES = Path(__file__).parent.parent / "cases"
EITHER, OF_AD = (CASES / "07-ldap-two-places-for-the-name/filters.txt").read_text().splitlines()
BY_EITHER: dict[str, tuple[str, str, tuple[int, str]]] = {
    "the name": (EITHER, "frank", (201, "A-18")),
    "the mail address, which is escaped": (EITHER, "frank*", (201, "A-18")),
    "a star that would stand for anything": (EITHER, "fran*", (401, "not_authenticated")),
    "what one entry has for a name, another for an address": (
        EITHER,
        "mail of another",
        (401, "not_authenticated"),
    ),
    "the longest name in the most places": (
        f"(|{'(a={username})' * 35})",
        "😀" * 255,
        (401, "not_authenticated"),
    ),
    "the name in Active Directory": (OF_AD, "FRANK", (201, "A-18")),
    "the address in Active Directory": (OF_AD, "frank@corp.example", (201, "A-18")),
    "one of another class": (OF_AD, "alice", (401, "not_authenticated")),
}


@pytest.mark.parametrize(("user_filter", "username", "expected"), BY_EITHER.values(), ids=BY_EITHER)
def test_07_every_place_of_the_username_in_a_filter_is_filled(
    directory: Slapd, nagra: HeadEnd, user_filter: str, username: str, expected: tuple[int, str]
) -> None:
    offer(directory.settings(user_filter=user_filter))
    answer = sign_on(nagra, username)
    told = answer.json()["accountId" if answer.status_code == 201 else "reason"]
    assert (answer.status_code, told) == expected


BIND_NAMES = (CASES / "08-ldap-service-account-of-ad/bind-names.txt").read_text().splitlines()


@pytest.mark.parametrize("name", [*BIND_NAMES, f"{'x' * 487}@corp.example"], ids=lambda name: name[:20])
def test_08_the_name_of_a_service_account_reaches_the_directory_as_it_is(nagra: HeadEnd, name: str) -> None:
    heard: list[bytes] = []

    def serve(wire: ssl.SSLSocket) -> None:
        heard.append(wire.recv(65536))
        wire.sendall(result(1, BIND))
        answering(ALICE + result(2, SEARCH_DONE), result(3, BIND))(wire)

    with fake(under_tls(serve)) as settings:
        offer({**settings, "bind_dn": name})
        answer = sign_on(nagra, "alice")
    assert (answer.status_code, answer.json()["accountId"]) == (201, "A-1")
    # A simple bind (RFC 4511, section 4.2): the name as an octet string, then the password.
    length = bytes([len(name)]) if len(name) < 128 else b"\x82" + len(name).to_bytes(2, "big")
    assert b"\x04" + length + name.encode() + b"\x80" in heard[0]


def offer(settings: dict[str, Any]) -> None:
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
