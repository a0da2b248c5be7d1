"""Unusable upstreams over TCP, UDP and HTTPS: unavailable, silent, or with invalid responses."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply
from tests.support.upstream.process import ATTEMPTS
from tests.support.waiting import PATIENCE

Server = Callable[[], AbstractContextManager[int]]
"""Runs on a port of loopback, which it yields."""


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port on which no server listens. It is bound, so that no other process can listen."""
    with _bind_pair() as (_, datagrams):
        # A connected UDP socket receives only from its peer, so other clients get an error.
        datagrams.connect(datagrams.getsockname())
        yield datagrams.getsockname()[1]


@contextmanager
def unread_port() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield sockets for TCP and UDP on the same port, which are not read."""
    with _bind_pair() as (stream, datagrams):
        stream.listen()
        yield stream, datagrams


@contextmanager
def _bind_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield sockets for TCP and UDP that are bound to the same port."""
    for attempt in range(1, ATTEMPTS + 1):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            try:
                datagrams.bind(stream.getsockname())
            except OSError:  # another process has this port for UDP
                if attempt == ATTEMPTS:
                    raise
                continue
            yield stream, datagrams
            return


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that accepts connections and datagrams, and never responds."""
    with unread_port() as (stream, _):
        yield stream.getsockname()[1]


def has_connection(sockets: tuple[socket.socket, socket.socket]) -> bool:
    """Return True if a connection or datagram has arrived."""
    return bool(select.select(sockets, [], [], 0)[0])


@contextmanager
def talking_server(words: bytes) -> Iterator[int]:
    """Yield the port of a server that sends these bytes to each client and closes the connection."""
    done = threading.Event()
    with unread_port() as (stream, datagrams):

        def talk() -> None:
            while not done.is_set():
                ready, _, _ = select.select((stream, datagrams), [], [], 0.02)
                if datagrams in ready:
                    datagrams.sendto(words[:4096], datagrams.recvfrom(65536)[1])
                if stream in ready:
                    client, _ = stream.accept()
                    with client, contextlib.suppress(OSError):  # the client may have disconnected
                        client.settimeout(PATIENCE)
                        client.sendall(words)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield stream.getsockname()[1]
        finally:
            done.set()
            thread.join(PATIENCE)


@contextmanager
def answering_server(reply: Reply | Callable[[ReceivedRequest], Reply]) -> Iterator[int]:
    """Yield the port of a trusted HTTPS server with one reply for all requests."""
    with HTTPSServer() as server:
        server.default_reply = reply
        yield server.port


def _send_slowly(_: ReceivedRequest) -> Reply:
    def now_and_then() -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b" "

    return Reply(200, now_and_then())


def _json(text: str) -> Reply:
    return Reply(200, text.encode(), {"Content-Type": "application/json"})


SERVERS: dict[str, Server] = {
    "is away": closed_port,
    "is silent": silent_server,
    "hangs up": partial(talking_server, b""),
    "talks rubbish": partial(talking_server, bytes(range(256)) * 16),
    "talks zeros": partial(talking_server, bytes(4096)),
}
"""Unusable for every protocol."""

_MEMBERS = ("active", "sub", "account", "accounts", "keys", "issuer", "jwks_uri")

_REPLIES: dict[str, Reply | Callable[[ReceivedRequest], Reply]] = {
    "status 500": Reply(500, b"{}"),
    "status 404": Reply(404, b"{}"),
    "status 401": Reply(401, b"{}"),
    "status 204": Reply(204),
    "a redirect": Reply(302, headers={"Location": "https://127.0.0.1:1/"}),
    "nothing": Reply(200),
    "a page": Reply(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"}),
    "no UTF-8": Reply(200, b'{"a": "\xff"}', {"Content-Type": "application/json"}),
    "more than anybody wants": Reply(200, b" " * 2_000_000),
    "without an end": Reply(200, itertools.repeat(b" " * 65536)),
    "drop by drop": _send_slowly,
    "never": Reply(200, b"{}", wait=threading.Event()),
    "a list": _json("[]"),
    "a list of objects": _json('[{"active": true}]'),
    "null": _json("null"),
    "true": _json("true"),
    "a string": _json('"active"'),
    "an object": _json("{}"),
    "objects where text belongs": _json(json.dumps({member: {} for member in _MEMBERS})),
    "lists of null": _json(json.dumps({member: [None] for member in _MEMBERS})),
    "deep nesting": _json('{"keys": ' + "[" * 20_000 + "]" * 20_000 + "}"),
    "a member given twice": _json('{"active": false, "active": true, "sub": "a", "account": "a"}'),
    "a huge integer": _json('{"active": ' + "1" * 5_000 + ', "sub": "a", "account": 1' + "0" * 400 + "}"),
    "a number that is infinite": _json('{"active": true, "sub": "a", "account": 1e400}'),
    "half of a surrogate pair": _json('{"active": true, "sub": "\\ud800", "account": "\\ud800"}'),
    "a NUL": _json('{"active": true, "sub": "\\u0000", "account": "\\u0000"}'),
}

HTTPS_SERVERS: dict[str, Server] = {
    f"answers {what}": partial(answering_server, reply) for what, reply in _REPLIES.items()
}
"""Unusable for HTTPS: trusted servers whose responses contain no account."""
