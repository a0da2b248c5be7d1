"""The HTTP client: https only, no redirects, no proxies, limited in time and size."""

from __future__ import annotations

import ssl
import threading
import time
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import h11
import httpcore2

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream.address import resolve_addresses
from providers.upstream.bulkhead import MAX_CONCURRENT_CALLS, Bulkhead, foreground
from providers.upstream.response import Response
from providers.upstream.tls import tls_context

LIMIT = 64 * 1024
"""Default maximum bytes of a response."""

IDLE = 4.0
"""Seconds for which an idle connection is kept: less than the keep-alive of servers."""


def request(
    method: str,
    url: str,
    settings: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    limit: int = LIMIT,
    bulkhead: Bulkhead = foreground,
) -> Response:
    """Return the answer of an https address to one request.

    `settings` are those of `UpstreamSettings`: the deadline in seconds, and whom to trust. Raises
    `UpstreamUnavailable`, also for an answer that redirects, is compressed, or is larger than `limit` bytes.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise UpstreamUnavailable(
            UpstreamFailure.ADDRESS_FORBIDDEN, "its address does not begin with https://"
        )
    deadline: float = settings["deadline"]
    call = _Call(method, url, settings["ca_certificates"], headers or {}, body, limit, deadline)
    return bulkhead.run(deadline, host_and_port(url), call)


def host_and_port(url: str) -> str:
    """Return the name of an upstream in bulkheads and logs."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 443}"


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, made in the thread that calls it."""

    method: str
    url: str
    authorities: str
    headers: Mapping[str, str]
    body: bytes
    limit: int
    deadline: float

    def __call__(self) -> Response:
        _own.ends = time.monotonic() + self.deadline
        sent = {"Accept-Encoding": "identity", "User-Agent": "AGS", **self.headers}
        if self.body:
            sent["Content-Length"] = str(len(self.body))
        request = httpcore2.Request(
            self.method,
            self.url,
            headers=[("Host", urlsplit(self.url).netloc), *sent.items()],
            content=self.body,
            extensions={"timeout": {"pool": self.deadline}},
        )
        with _outages():
            response = _pool(self.authorities).handle_request(request)
            try:
                return self._read(response)
            finally:
                response.close()

    def _read(self, response: httpcore2.Response) -> Response:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        if 300 <= response.status < 400:
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, "it redirects, which AGS does not follow"
            )
        if headers.get("content-encoding", "identity") != "identity":
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, "its answer is compressed, which AGS has not asked for"
            )
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > self.limit:
                raise UpstreamUnavailable(UpstreamFailure.RESPONSE_TOO_LARGE)
        stream: _Stream = response.extensions["network_stream"]
        if _has_more(self.method, bytes(stream.received)):
            # Kept, the connection would answer the next request, of somebody else, with what is left over.
            stream.close()
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "its answer is longer than it says")
        # RFC 8259, section 8.1, lets a reader ignore a byte order mark.
        return Response(response.status, headers, bytes(body).removeprefix(BOM_UTF8))


def _has_more(method: str, received: bytes) -> bool:
    """Return whether data follows the response. httpcore2 does not report it, so h11 parses it again."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(received)
    while (event := reader.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.EndOfMessage):
            return bool(reader.trailing_data[0])
    return False  # it ends with the connection


@contextmanager
def _outages() -> Iterator[None]:
    """Translate the exceptions of the library."""
    try:
        yield
    except httpcore2.TimeoutException:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None
    except httpcore2.NetworkError:
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None
    except httpcore2.ProtocolError:
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "its answer is not valid HTTP") from None


@lru_cache(maxsize=256)
def _pool(authorities: str) -> httpcore2.ConnectionPool:
    """Return the connection pool for servers with the same CA certificates."""
    return httpcore2.ConnectionPool(
        tls_context(authorities),
        max_connections=MAX_CONCURRENT_CALLS,
        keepalive_expiry=IDLE,
        network_backend=_Network(),
    )


# When the call of this thread must have ended.
_own = threading.local()


def _left() -> float:
    """Return the seconds that are left: a server that sends slowly gets no extra time."""
    left: float = _own.ends - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout
    return left


class _Network(httpcore2.NetworkBackend):
    """Connects only to allowed addresses."""

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        backend = httpcore2.SyncBackend()
        *others, last = resolve_addresses(host, port)
        for address in others:
            try:
                return _Stream(backend.connect_tcp(address, port, _left() / 2))
            except (httpcore2.NetworkError, httpcore2.ConnectTimeout):
                continue
        return _Stream(backend.connect_tcp(last, port, _left()))


class _Stream(httpcore2.NetworkStream):
    """A connection on which each step has the time that is left of the whole.

    `received` is the answer to what was written last.
    """

    def __init__(self, wire: httpcore2.NetworkStream) -> None:
        self._wire, self.received = wire, bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._wire.read(max_bytes, _left())
        self.received += data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.received.clear()
        self._wire.write(buffer, _left())

    def close(self) -> None:
        self._wire.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            return _Stream(self._wire.start_tls(ssl_context, server_hostname, _left()))
        except httpcore2.TimeoutException:
            # For the library it is no connection before TLS has begun, so nobody else closes it.
            self.close()
            raise
        except httpcore2.ConnectError as error:
            match error.__cause__:
                case ssl.SSLCertVerificationError():
                    raise UpstreamUnavailable(UpstreamFailure.CERTIFICATE_UNTRUSTED) from None
                case ssl.SSLError():
                    raise UpstreamUnavailable(
                        UpstreamFailure.RESPONSE_INVALID, "it does not speak TLS as it should"
                    ) from None
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._wire.get_extra_info(info)
