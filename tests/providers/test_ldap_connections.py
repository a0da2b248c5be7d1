"""The provider `ldap`: failed connections, TLS, and unusable servers."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import pytest

from providers.contract import Identity, UpstreamFailure, UpstreamUnavailable, VerificationFailed
from providers.upstream import bulkhead
from tests.support.ldap import (
    ACCOUNT,
    ALICE,
    BIND,
    ENTRIES,
    EXTENDED,
    OTHER,
    SEARCH_DONE,
    SEARCH_ENTRY,
    Behave,
    fake_ldap_server,
    message,
    respond_with,
    result,
    text,
    verify,
    with_tls,
)
from tests.support.markers import skip_unless_installed
from tests.support.upstream.authority import Authority, authority, untrusted_authority
from tests.support.upstream.deadlines import LONG, SHORT
from tests.support.upstream.slapd import BASE, PASSWORD, Slapd, slapd
from tests.support.waiting import wait_until

pytestmark = skip_unless_installed(
    programs={"slapd": "apt-get install slapd"},
    modules={"ldap": "pip install --require-hashes -r requirements/ldap.txt"},
)


def get_failure(
    settings: dict[str, Any], username: str = "alice", deadline: float = LONG
) -> UpstreamUnavailable:
    with pytest.raises(UpstreamUnavailable) as raised:
        verify(username, PASSWORD, settings, deadline)
    return raised.value


# settings that differ, username, failure, part of the message
UNAVAILABLE: dict[str, tuple[dict[str, Any], str, UpstreamFailure, str]] = {
    "rejects the password of the service account": (
        {"bind_password": "wrong"},
        "alice",
        UpstreamFailure.CREDENTIALS_REJECTED,
        "credentials",
    ),
    "does not have the service account": (
        {"bind_dn": f"cn=x,{BASE}"},
        "alice",
        UpstreamFailure.CREDENTIALS_REJECTED,
        "credentials",
    ),
    "does not allow anonymous searches": (
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
    "sends too much": (
        {"account_attribute": "description"},
        "huge",
        UpstreamFailure.RESPONSE_TOO_LARGE,
        "too large",
    ),
    "does not listen on the address": (
        {"host": "127.0.0.2"},
        "alice",
        UpstreamFailure.UNREACHABLE,
        "reached",
    ),
    "has a certificate of another CA": (
        {"ca_certificates": untrusted_authority().certificate},
        "alice",
        UpstreamFailure.CERTIFICATE_UNTRUSTED,
        "certificate",
    ),
    "has a certificate of no CA of the system": (
        {"ca_certificates": ""},
        "alice",
        UpstreamFailure.CERTIFICATE_UNTRUSTED,
        "certificate",
    ),
}


@pytest.mark.parametrize(("settings", "username", "expected", "word"), UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_unavailable_if_the_directory(
    directory: Slapd, settings: dict[str, Any], username: str, expected: UpstreamFailure, word: str
) -> None:
    raised = get_failure(directory.settings(**settings), username)
    assert (raised.failure, word in str(raised)) == (expected, True), str(raised)


def test_no_credentials_are_sent_without_tls() -> None:
    with slapd(ENTRIES, tls=False) as directory:
        raised = get_failure(directory.settings(transport="starttls"))
        assert (raised.failure, str(raised)) == (UpstreamFailure.RESPONSE_INVALID, "it rejects StartTLS")
        assert get_failure(directory.settings(port=directory.clear)).failure is UpstreamFailure.UNREACHABLE
        assert "BIND" not in directory.log


@pytest.mark.parametrize("transport", ["ldaps", "starttls"])
def test_a_certificate_of_another_ca_is_not_trusted(transport: str) -> None:
    with slapd(ENTRIES, issuer=untrusted_authority()) as directory:
        assert (
            get_failure(directory.settings(transport=transport)).failure
            is UpstreamFailure.CERTIFICATE_UNTRUSTED
        )
        assert "BIND" not in directory.log


def test_an_intermediate_ca_can_be_trusted_without_its_issuer() -> None:
    lone = Authority(authority())
    with slapd(ENTRIES, issuer=lone) as directory:
        for transport in ("ldaps", "starttls"):
            trusting = {"transport": transport, "ca_certificates": lone.certificate}
            assert verify("alice", PASSWORD, directory.settings(**trusting)) == Identity("A-1")


def test_the_certificate_must_match_the_host_name(directory: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "directory.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (
        get_failure(directory.settings(host="directory.example")).failure
        is UpstreamFailure.CERTIFICATE_UNTRUSTED
    )


def test_a_private_address_must_be_allowed(directory: Slapd, settings: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = []
    assert get_failure(directory.settings()).failure is UpstreamFailure.ADDRESS_FORBIDDEN


def drip(wire: ssl.SSLSocket) -> None:
    wire.sendall(b"\x30\x84\x00\x00\xff\xff")  # the beginning of a long message
    while True:
        time.sleep(0.05)
        wire.sendall(b"\x00")


NAMELESS = message(2, SEARCH_ENTRY, text(b""), ACCOUNT)
LATIN = message(2, SEARCH_ENTRY, text(b"cn=\xe9"), text(b"", 0x30))

SILENT: dict[str, Behave] = {
    "sends nothing": lambda wire: None,
    "sends nothing after TLS": with_tls(lambda wire: None),
    "sends single bytes": with_tls(drip),
    "responds with another message ID": with_tls(respond_with(result(7, BIND), b"", b"")),
}

UNUSABLE: dict[str, tuple[Behave, UpstreamFailure]] = {
    "sends no TLS": (lambda wire: wire.sendall(b"SSH-2.0-x\r\n"), UpstreamFailure.RESPONSE_INVALID),
    "closes the connection": (lambda wire: wire.close(), UpstreamFailure.UNREACHABLE),
    "sends no LDAP": (with_tls(respond_with(b"\x30\x03no!")), UpstreamFailure.RESPONSE_INVALID),
    "announces a gigabyte": (
        with_tls(respond_with(b"\x30\x84\x40\x00\x00\x00" + b"x" * 70_000)),
        UpstreamFailure.RESPONSE_TOO_LARGE,
    ),
    "closes the connection after the bind": (
        with_tls(respond_with(result(1, BIND))),
        UpstreamFailure.UNREACHABLE,
    ),
    "is busy": (with_tls(respond_with(result(1, BIND, 51))), UpstreamFailure.UNREACHABLE),
    "sends an unknown result code": (
        with_tls(respond_with(result(1, BIND, 99))),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "refers elsewhere": (with_tls(respond_with(result(1, BIND, 10))), UpstreamFailure.RESPONSE_INVALID),
    "takes too long to search": (
        with_tls(respond_with(result(1, BIND), result(2, SEARCH_DONE, 3))),
        UpstreamFailure.TIMEOUT,
    ),
    "sends a DN in Latin-1": (
        with_tls(respond_with(result(1, BIND), LATIN + result(2, SEARCH_DONE))),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "closes the connection on the password": (
        with_tls(respond_with(result(1, BIND), ALICE + result(2, SEARCH_DONE))),
        UpstreamFailure.UNREACHABLE,
    ),
}


@pytest.mark.parametrize(("behavior", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_server_accepts_nobody(behavior: Behave, expected: UpstreamFailure) -> None:
    with fake_ldap_server(behavior) as settings:
        assert get_failure(settings).failure is expected


def wait_for_free_slots() -> None:
    wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")


@pytest.mark.parametrize("behavior", SILENT.values(), ids=SILENT)
def test_the_deadline_limits_a_silent_server(behavior: Behave) -> None:
    with fake_ldap_server(behavior) as settings:
        assert get_failure(settings, deadline=SHORT).failure is UpstreamFailure.TIMEOUT
        wait_for_free_slots()  # the call has ended; the server has not


def test_data_received_before_tls_is_not_used_after_it() -> None:
    """A man in the middle can append data to the only response without TLS."""

    def behavior(wire: socket.socket) -> None:
        wire.recv(65536)
        found = message(3, SEARCH_ENTRY, text(b"cn=alice"), ACCOUNT) + result(3, SEARCH_DONE)
        wire.sendall(result(1, EXTENDED) + result(2, BIND) + found + result(4, BIND))
        with_tls(lambda secured: None)(wire)

    with fake_ldap_server(behavior) as settings:
        assert get_failure({**settings, "transport": "starttls"}, deadline=SHORT).failure in {
            UpstreamFailure.TIMEOUT,
            UpstreamFailure.UNREACHABLE,
            UpstreamFailure.RESPONSE_INVALID,
        }


def test_the_fake_server_can_accept_a_user() -> None:
    """Without this, the tests with unusable servers would be void."""
    good = with_tls(respond_with(result(1, BIND), ALICE + result(2, SEARCH_DONE), result(3, BIND)))
    with fake_ldap_server(good) as settings:
        assert verify("alice", PASSWORD, settings) == Identity("A-1")


def test_an_entry_without_a_dn_is_ignored() -> None:
    lax = with_tls(respond_with(result(1, BIND), NAMELESS + result(2, SEARCH_DONE), result(3, BIND)))
    with fake_ldap_server(lax) as settings, pytest.raises(VerificationFailed):
        verify("alice", "wrong", settings)


def test_the_slot_of_a_timed_out_call_is_released() -> None:
    with fake_ldap_server(with_tls(drip)) as settings:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM + 1):
            assert get_failure(settings, deadline=0.1).failure is UpstreamFailure.TIMEOUT
            wait_for_free_slots()
