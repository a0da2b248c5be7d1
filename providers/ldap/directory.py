"""Asking a directory: libldap encodes and decodes, and the connection is ours.

Left to itself, libldap looks the name of the server up again, so that it could lead elsewhere than to the
address that was allowed; trusts and verifies by settings of the whole process; and a handshake may last as
long as the server likes. So it speaks into a pair of sockets, and a `TLSConnection` transfers the data.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ldap
from ldap.extop import ExtendedRequest

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.ldap.connection import TLSConnection, connected

STARTTLS = "starttls"

SHARE = 0.9
"""The share of the deadline for one session: errors are then known before the deadline."""

# Where libldap would connect by itself, were its end of the pair closed: nowhere, for that is in no folder.
_NOWHERE = "ldapi://%2Fdev%2Fnull%2Fnowhere"

_START_TLS = ExtendedRequest("1.3.6.1.4.1.1466.20037", None)  # RFC 4511, section 4.14

_BAD_PASSWORD = (
    ldap.INVALID_CREDENTIALS,
    ldap.NO_SUCH_OBJECT,  # said by some of a DN that is not there
    ldap.INAPPROPRIATE_AUTH,  # an entry without a password
    ldap.INSUFFICIENT_ACCESS,
    ldap.UNWILLING_TO_PERFORM,  # said by some of an account that is locked
    ldap.CONSTRAINT_VIOLATION,  # said by others
)

_OUTAGES: Mapping[type[ldap.LDAPError], UpstreamFailure] = {
    ldap.BUSY: UpstreamFailure.UNREACHABLE,
    ldap.UNAVAILABLE: UpstreamFailure.UNREACHABLE,
    ldap.TIMELIMIT_EXCEEDED: UpstreamFailure.TIMEOUT,
    ldap.ADMINLIMIT_EXCEEDED: UpstreamFailure.TIMEOUT,
    ldap.INVALID_CREDENTIALS: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.INSUFFICIENT_ACCESS: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.INAPPROPRIATE_AUTH: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.STRONG_AUTH_REQUIRED: UpstreamFailure.CREDENTIALS_REJECTED,
}
"""What result codes mean for requests of the service account; any other is `RESPONSE_INVALID`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its DN and attributes. Names of attributes are in lower case."""

    dn: str = field(repr=False)
    attributes: Mapping[str, list[bytes]] = field(repr=False)


class Directory:
    """A session with the directory over one connection. Raises `UpstreamUnavailable`."""

    def __init__(self, connection: TLSConnection) -> None:
        self._connection = connection
        self._pair, self._library = _library()

    def close(self) -> None:
        """End it, without a word."""
        self._pair.close()
        with contextlib.suppress(ldap.LDAPError):
            self._library.unbind_ext_s()

    def start_tls(self) -> None:
        """Ask whether TLS may begin."""
        try:
            self._ask(lambda library: library.extop(_START_TLS))
        except ldap.LDAPError:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "it refuses StartTLS") from None

    def bind_service_account(self, name: str, password: str) -> None:
        """Bind as the service account."""
        with _outages():
            self._ask(lambda library: library.simple_bind(name, password))

    def check_password(self, dn: str, password: str) -> bool:
        """Return whether the password is correct. It must not be empty (RFC 4513, section 5.1.2)."""
        with _outages():
            try:
                self._ask(lambda library: library.simple_bind(dn, password))
            except _BAD_PASSWORD:
                return False
            return True

    def search(self, base: str, wanted: str, attributes: list[str]) -> list[Entry]:
        """Return the entries below `base` that match the filter `wanted`, at most two."""
        seconds = max(1, int(self._connection.left()))
        with _outages():
            try:
                found = self._ask(
                    lambda library: library.search_ext(
                        base, ldap.SCOPE_SUBTREE, wanted, attributes, timeout=seconds, sizelimit=2
                    )
                )
            except ldap.SIZELIMIT_EXCEEDED:
                return [Entry("", {}), Entry("", {})]
            except ldap.NO_SUCH_OBJECT:
                raise UpstreamUnavailable(
                    UpstreamFailure.RESPONSE_INVALID, "it has no such search base, or keeps it from AGS"
                ) from None
            except ldap.REFERRAL:
                raise UpstreamUnavailable(
                    UpstreamFailure.RESPONSE_INVALID, "it refers to another server, which AGS does not ask"
                ) from None
        # Whatever has no DN refers to another server.
        return [
            Entry(dn, {name.lower(): values for name, values in said.items()}) for dn, said in found if dn
        ]

    def _ask(self, request: Callable[[Any], int]) -> list[Any]:
        """Return the response of the server, decoded by libldap. Raises LDAPError."""
        message = request(self._library)
        self._pair.settimeout(self._connection.left())
        self._connection.send(self._pair.recv(_REQUEST))
        while True:
            kind, data = self._library.result(message, all=1, timeout=0)
            if kind is not None:
                return data or []
            self._pair.settimeout(self._connection.left())
            # It takes one message at a time.
            if not select.select([self._library], [], [], 0)[0]:
                self._pair.sendall(self._connection.receive())


_REQUEST = 128 * 1024
"""Bytes, more than any request has; it is written at once."""


@contextmanager
def _outages() -> Iterator[None]:
    """Translate the exceptions of libldap, without text of the server."""
    try:
        yield
    except ldap.LDAPError as error:
        raise _outage(error) from None
    except (UnicodeError, ValueError, TimeoutError):
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, _NO_LDAP) from None


def _outage(error: ldap.LDAPError) -> UpstreamUnavailable:
    for kind, meant in _OUTAGES.items():
        if isinstance(error, kind):
            return UpstreamUnavailable(meant)
    # Below zero is what libldap found by itself.
    is_said = error.args and error.args[0].get("result", -1) >= 0
    return UpstreamUnavailable(
        UpstreamFailure.RESPONSE_INVALID, f"it answers with {type(error).__name__}" if is_said else _NO_LDAP
    )


_NO_LDAP = "its answer is not valid LDAP"


@contextmanager
def open_directory(settings: Mapping[str, Any]) -> Iterator[Directory]:
    """Yield a session with TLS, bound as the service account if there is one."""
    with connected(settings, time.monotonic() + settings["deadline"] * SHARE) as connection:
        if settings["transport"] == STARTTLS:
            # Data received without TLS must not be read as the response to a later request.
            with contextlib.closing(Directory(connection)) as nobody:
                nobody.start_tls()
        connection.secure(settings["ca_certificates"], settings["host"])
        with contextlib.closing(Directory(connection)) as directory:
            if settings["bind_dn"]:
                directory.bind_service_account(settings["bind_dn"], settings["bind_password"])
            yield directory


def is_filter(text: str) -> bool:
    """Return whether libldap can encode the filter (RFC 4515)."""
    ours, library = _library()
    with contextlib.closing(ours):
        try:
            library.search_ext("", ldap.SCOPE_BASE, text)
        except (ldap.LDAPError, UnicodeError, ValueError):
            return False
        finally:
            library.unbind_ext_s()
    return True


def _library() -> tuple[socket.socket, Any]:
    """Return libldap, and where what it says comes out."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # or it would wait, without limit, for the rest of an answer
    library = ldap.initialize(_NOWHERE, fileno=theirs.detach())
    library.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
    return ours, library
