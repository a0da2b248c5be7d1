"""An LDAP client: libldap only encodes and decodes messages, on one end of a socket pair."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ldap
from ldap.extop import ExtendedRequest

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.ldap.connection import TLSConnection
from providers.upstream.response import invalid_response

STARTTLS = "starttls"

DEADLINE_SHARE = 0.9  # of the deadline, so that the errors of a session occur before it

# libldap connects to this URI if its end of the socket pair is closed. It must not exist.
_INVALID_URI = "ldapi://%2Fdev%2Fnull%2Fnowhere"

_START_TLS = ExtendedRequest("1.3.6.1.4.1.1466.20037", None)  # RFC 4511, section 4.14

_PASSWORD_REJECTED = (
    ldap.INVALID_CREDENTIALS,
    ldap.NO_SUCH_OBJECT,  # from some servers for an unknown DN
    ldap.INAPPROPRIATE_AUTH,  # an entry without a password
    ldap.INSUFFICIENT_ACCESS,
    ldap.UNWILLING_TO_PERFORM,  # from some servers for a locked account
    ldap.CONSTRAINT_VIOLATION,  # from other servers
)

_FAILURES: Mapping[type[ldap.LDAPError], UpstreamFailure] = {
    ldap.BUSY: UpstreamFailure.UNREACHABLE,
    ldap.UNAVAILABLE: UpstreamFailure.UNREACHABLE,
    ldap.TIMELIMIT_EXCEEDED: UpstreamFailure.TIMEOUT,
    ldap.ADMINLIMIT_EXCEEDED: UpstreamFailure.TIMEOUT,
    ldap.INVALID_CREDENTIALS: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.INSUFFICIENT_ACCESS: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.INAPPROPRIATE_AUTH: UpstreamFailure.CREDENTIALS_REJECTED,
    ldap.STRONG_AUTH_REQUIRED: UpstreamFailure.CREDENTIALS_REJECTED,
}
"""By the result code of a request of the service account. All others are `RESPONSE_INVALID`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its DN and attributes. Names of attributes are in lower case."""

    dn: str = field(repr=False)
    attributes: Mapping[str, list[bytes]] = field(repr=False)


class Directory:
    """A session with the directory over one connection. Raises `UpstreamUnavailable`.

    libldap would resolve the host name again, possibly to an address that is not allowed; its TLS settings
    apply to the whole process; and its TLS handshake has no time limit.
    """

    def __init__(self, connection: TLSConnection) -> None:
        self._connection = connection
        self._pair, self._library = _open_libldap()

    def close(self) -> None:
        self._pair.close()
        with contextlib.suppress(ldap.LDAPError):
            self._library.unbind_ext_s()

    def start_tls(self) -> None:
        """The caller then performs the TLS handshake."""
        try:
            self._request(lambda library: library.extop(_START_TLS))
        except ldap.LDAPError:
            raise invalid_response("it rejects StartTLS") from None

    def bind_service_account(self, name: str, password: str) -> None:
        with _translate_errors():
            self._request(lambda library: library.simple_bind(name, password))

    def check_password(self, dn: str, password: str) -> bool:
        """Return True if the password is correct. It must not be empty (RFC 4513, section 5.1.2)."""
        with _translate_errors():
            try:
                self._request(lambda library: library.simple_bind(dn, password))
            except _PASSWORD_REJECTED:
                return False
            return True

    def search(self, base: str, search_filter: str, attributes: list[str]) -> list[Entry]:
        """Return the matching entries below `base`, or two empty entries if more than two match."""
        seconds = max(1, int(self._connection.remaining_seconds()))
        with _translate_errors():
            try:
                results = self._request(
                    lambda library: library.search_ext(
                        base, ldap.SCOPE_SUBTREE, search_filter, attributes, timeout=seconds, sizelimit=2
                    )
                )
            except ldap.SIZELIMIT_EXCEEDED:
                return [Entry("", {}), Entry("", {})]
            except ldap.NO_SUCH_OBJECT:
                raise invalid_response("it has no such search base, or AGS may not read it") from None
            except ldap.REFERRAL:
                raise invalid_response("it refers to another server, which AGS does not follow") from None
        # A result without a DN is a referral to another server.
        return [
            Entry(dn, {name.lower(): values for name, values in attributes.items()})
            for dn, attributes in results
            if dn
        ]

    def _request(self, request: Callable[[Any], int]) -> list[Any]:
        """Return the response of the server, decoded by libldap. Raises LDAPError."""
        message = request(self._library)
        self._pair.settimeout(self._connection.remaining_seconds())
        self._connection.send(self._pair.recv(_MAX_REQUEST))
        while True:
            kind, data = self._library.result(message, all=1, timeout=0)
            if kind is not None:
                return data or []
            self._pair.settimeout(self._connection.remaining_seconds())
            # libldap reads one message at a time: send more data only after it has read all.
            if not select.select([self._library], [], [], 0)[0]:
                self._pair.sendall(self._connection.receive())


_MAX_REQUEST = 128 * 1024  # bytes; more than any request, which libldap writes in one call


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Convert the exceptions of libldap, without text from the server."""
    try:
        yield
    except ldap.LDAPError as error:
        if (failure := _FAILURES.get(type(error))) is not None:
            raise UpstreamUnavailable(failure) from None
        # libldap's own errors have negative codes.
        is_from_server = error.args and error.args[0].get("result", -1) >= 0
        name = type(error).__name__
        raise invalid_response(f"it responds with {name}" if is_from_server else _INVALID_LDAP) from None
    except (UnicodeError, ValueError, TimeoutError):
        raise invalid_response(_INVALID_LDAP) from None


_INVALID_LDAP = "its response is not valid LDAP"


@contextlib.contextmanager
def open_directory(settings: Mapping[str, Any]) -> Iterator[Directory]:
    """Yield a session with TLS, bound as the service account if there is one."""
    ends = time.monotonic() + settings["deadline"] * DEADLINE_SHARE
    with contextlib.closing(TLSConnection(settings["host"], settings["port"], ends)) as connection:
        if settings["transport"] == STARTTLS:
            # A separate libldap handle: data received without TLS must not be read as a later response.
            with contextlib.closing(Directory(connection)) as unencrypted:
                unencrypted.start_tls()
        connection.secure(settings["ca_certificates"], settings["host"])
        with contextlib.closing(Directory(connection)) as directory:
            if settings["bind_dn"]:
                directory.bind_service_account(settings["bind_dn"], settings["bind_password"])
            yield directory


def is_valid_filter(text: str) -> bool:
    ours, library = _open_libldap()
    with contextlib.closing(ours):
        try:
            library.search_ext("", ldap.SCOPE_BASE, text)
        except (ldap.LDAPError, UnicodeError, ValueError):
            return False
        finally:
            library.unbind_ext_s()
    return True


def _open_libldap() -> tuple[socket.socket, Any]:
    """Return our end of the socket pair, and the libldap handle that uses the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # otherwise libldap waits for the rest of a response without limit
    library = ldap.initialize(_INVALID_URI, fileno=theirs.detach())
    library.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
    return ours, library
