"""The connection to a directory: to an allowed address, with TLS, within a deadline."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import resolve_addresses, tls_context
from providers.upstream.response import invalid_response

LIMIT = 64 * 1024  # maximum bytes that a directory may send on one connection
_CHUNK = 16 * 1024

_T = TypeVar("_T")


class TLSConnection:
    """A TCP connection, unencrypted until `secure` is called.

    Every operation ends by `ends`, a time of `time.monotonic()`. Raises `UpstreamUnavailable`.
    """

    def __init__(self, host: str, port: int, ends: float) -> None:
        self._ends = ends
        self._received = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._stream = self._connect(host, port)
        # Send each request immediately, without waiting for an acknowledgement of the previous one.
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _connect(self, host: str, port: int) -> socket.socket:
        *others, last = resolve_addresses(host, port)
        for address in others:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, port), self.remaining_seconds() / 2)
        with _translate_errors():
            return socket.create_connection((last, port), self.remaining_seconds())

    def close(self) -> None:
        self._stream.close()

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline. Raises `UpstreamUnavailable(TIMEOUT)` if it has passed."""
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        return seconds

    def secure(self, ca_certificates: str, host: str) -> None:
        """Perform the TLS handshake. The server needs a certificate for `host` from one of these CAs."""
        tls = _context(ca_certificates).wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._run_tls(tls.do_handshake)
        self._tls = tls

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self._send_raw(data)
        else:
            self._run_tls(partial(self._tls.write, data))

    def receive(self) -> bytes:
        """Receive at least one byte."""
        if self._tls is None:
            return self._receive_raw()
        data = self._run_tls(partial(self._tls.read, _CHUNK))
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        return data

    def _run_tls(self, call: Callable[[], _T]) -> _T:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                self._send_raw(self._outgoing.read())
                self._incoming.write(self._receive_raw())
            except ssl.SSLCertVerificationError:
                raise UpstreamUnavailable(UpstreamFailure.CERTIFICATE_UNTRUSTED) from None
            except ssl.SSLError:
                raise invalid_response("its TLS handshake is invalid") from None
            else:
                self._send_raw(self._outgoing.read())
                return result

    def _send_raw(self, data: bytes) -> None:
        with _translate_errors():
            self._stream.settimeout(self.remaining_seconds())
            self._stream.sendall(data)

    def _receive_raw(self) -> bytes:
        with _translate_errors():
            self._stream.settimeout(self.remaining_seconds())
            data = self._stream.recv(_CHUNK)
        self._received += len(data)
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        if self._received > LIMIT:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_TOO_LARGE)
        return data


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None
    except OSError:
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None


_context = lru_cache(maxsize=256)(tls_context)
