"""The HTTP client: https only, no redirects, no proxies, limited in time and size.

It uses httpcore2: httpx2 would add redirects, cookies and proxies (docs/decisions/0017-upstreams.md).
"""

import ssl
import threading
import time
from codecs import BOM_UTF8
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import h11
import httpcore2

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream.address import resolve_addresses
from providers.upstream.bulkhead import MAX_CONCURRENT_CALLS, Bulkhead, foreground
from providers.upstream.response import Response, invalid_response
from providers.upstream.tls import tls_context

LIMIT = 64 * 1024  # default maximum bytes of a response
IDLE = 4.0  # seconds that an idle connection is kept: less than servers usually do


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
    """Send one request to an https URL and return the response.

    `settings` are those of `UpstreamSettings`: `deadline` in seconds, and `ca_certificates`. Raises
    `UpstreamUnavailable`, also if the response redirects, is compressed, or is larger than `limit` bytes.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise UpstreamUnavailable(UpstreamFailure.ADDRESS_FORBIDDEN, "its URL does not begin with https://")
    sent = {"Accept-Encoding": "identity", "User-Agent": "AGS", **(headers or {})}
    if body:
        sent["Content-Length"] = str(len(body))
    deadline: float = settings["deadline"]
    call = httpcore2.Request(
        method,
        url,
        headers=[("Host", parts.netloc), *sent.items()],
        content=body,
        extensions={"timeout": {"pool": deadline}},
    )
    send = partial(_send, call, settings["ca_certificates"], limit, deadline)
    return bulkhead.run(deadline, host_and_port(url), send)


def host_and_port(url: str) -> str:
    """Return the name of an upstream in bulkheads and logs."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 443}"


def count_connections() -> int:
    """Return the number of connections of this process to upstreams, with idle ones."""
    return sum(len(pool.connections) for pool in tuple(_pools))


def _send(call: httpcore2.Request, ca_certificates: str, limit: int, deadline: float) -> Response:
    _current_call.ends = time.monotonic() + deadline
    try:
        with closing(_pool(ca_certificates).handle_request(call)) as response:
            return _read(call.method.decode(), response, limit)
    except httpcore2.TimeoutException:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None
    except httpcore2.NetworkError:
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None
    except httpcore2.ProtocolError:
        raise invalid_response("its response is not valid HTTP") from None


def _read(method: str, response: httpcore2.Response, limit: int) -> Response:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    if 300 <= response.status < 400:
        raise invalid_response("it redirects, which AGS does not follow")
    if headers.get("content-encoding", "identity") != "identity":
        raise invalid_response("its response is compressed, although AGS did not accept that")
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > limit:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_TOO_LARGE)
    stream: _Stream = response.extensions["network_stream"]
    if _has_trailing_data(method, bytes(stream.received)):
        # On a reused connection, this data would be read as the response to the next request.
        stream.close()
        raise invalid_response("data follows its response")
    # RFC 8259, section 8.1, allows parsers to ignore a byte order mark.
    return Response(response.status, headers, bytes(body).removeprefix(BOM_UTF8))


def _has_trailing_data(method: str, received: bytes) -> bool:
    """Return True if data follows the response. httpcore2 does not report it, so h11 parses it again."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(received)
    while (event := reader.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.EndOfMessage):
            return bool(reader.trailing_data[0])
    return False  # the body ends when the connection closes


_pools: WeakSet[httpcore2.ConnectionPool] = WeakSet()


@lru_cache(maxsize=256)
def _pool(ca_certificates: str) -> httpcore2.ConnectionPool:
    pool = httpcore2.ConnectionPool(
        tls_context(ca_certificates),
        max_connections=MAX_CONCURRENT_CALLS,
        keepalive_expiry=IDLE,
        network_backend=_Network(),
    )
    _pools.add(pool)
    return pool


# `ends` is the time (`time.monotonic()`) by which the call of this thread must end.
_current_call = threading.local()


def _remaining_seconds() -> float:
    """Return the seconds until the deadline of the call. Raises `ReadTimeout` if it has passed."""
    seconds: float = _current_call.ends - time.monotonic()
    if seconds <= 0:
        raise httpcore2.ReadTimeout
    return seconds


class _Network(httpcore2.NetworkBackend):
    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        backend = httpcore2.SyncBackend()
        *others, last = resolve_addresses(host, port)
        for address in others:
            with suppress(httpcore2.NetworkError, httpcore2.ConnectTimeout):
                return _Stream(backend.connect_tcp(address, port, _remaining_seconds() / 2))
        return _Stream(backend.connect_tcp(last, port, _remaining_seconds()))


class _Stream(httpcore2.NetworkStream):
    """A connection that applies the deadline of the call to every operation, instead of a timeout."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner
        self.received = bytearray()  # since the last write

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, _remaining_seconds())
        self.received += data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.received.clear()
        self._inner.write(buffer, _remaining_seconds())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, _remaining_seconds()))
        except httpcore2.TimeoutException:
            # httpcore2 closes a connection only after TLS has started.
            self.close()
            raise
        except httpcore2.ConnectError as error:
            match error.__cause__:
                case ssl.SSLCertVerificationError():
                    raise UpstreamUnavailable(UpstreamFailure.CERTIFICATE_UNTRUSTED) from None
                case ssl.SSLError():
                    raise invalid_response("its TLS handshake is invalid") from None
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
