"""The provider `ldap`: entries, settings and results."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from providers.contract import Choice, Identity, KeyRing
from providers.registry import strategies
from tenants.services.settings import clean_settings
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG
from tests.support.upstream.slapd import BASE, entry, person, settings_at

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


def cleaned(settings: dict[str, Any], deadline: float = LONG) -> Any:
    return {**clean_settings(strategies()["ldap"], settings)[1], "deadline": deadline}


def verify(
    username: str, password: str, settings: dict[str, Any], deadline: float = LONG
) -> Identity | Choice:
    parameters = {"Username": username, "Password": password}
    return strategies()["ldap"].verify(parameters, cleaned(settings, deadline), RING)


Behave = Callable[[socket.socket], None]


@contextmanager
def fake_ldap_server(behavior: Behave) -> Iterator[dict[str, Any]]:
    """Run a server that calls `behavior` for each connection; yield the settings of a service."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve(wire: socket.socket) -> None:
            with wire:
                wire.settimeout(LONG)  # longer than a test waits for the client to close the connection
                try:
                    behavior(wire)
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


def with_tls(behavior: Callable[[ssl.SSLSocket], None]) -> Behave:
    def serve(wire: socket.socket) -> None:
        with authority().server_context().wrap_socket(wire, server_side=True) as secured:
            behavior(secured)
            while secured.recv(65536):  # until the client closes the connection
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


def respond_with(*responses: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Return a behavior that sends the next response for each request, then closes the connection."""

    def serve(wire: ssl.SSLSocket) -> None:
        for response in responses:
            wire.recv(65536)
            wire.sendall(response)
        wire.unwrap()

    return serve


ACCOUNT = text(text(text(b"employeeNumber") + text(text(b"A-1"), 0x31), 0x30), 0x30)
ALICE = message(2, SEARCH_ENTRY, text(b"cn=alice"), ACCOUNT)
