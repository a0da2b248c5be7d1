"""`manage.py export_events --syslog`: events as messages of RFC 5424."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from ags.sessions.models import SecurityEvent
from tests.support.clients import HeadEnd
from tests.support.event_exports import add_event, add_many_events, age_events, event_id, run_export
from tests.support.waiting import PATIENCE

HEADER = re.compile(r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S+) ags \d+ (\w+) - (?={)")


def parse_message(message: bytes) -> tuple[re.Match[str], dict[str, Any]]:
    """Return the header and the event of a message, which have the same time and kind."""
    text = message.decode("ascii")
    header = HEADER.match(text)
    assert header is not None, text
    event = json.loads(text[header.end() :])
    assert (event["time"], event["kind"]) == (header[2], header[4])
    return header, event


class Receiver:
    """A syslog server for one TCP connection."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE)
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.received = b""
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            while data := connection.recv(65536):
                self.received += data

    def messages(self) -> list[bytes]:
        """Return the messages, by their lengths, after the connection has ended."""
        self._thread.join(PATIENCE)
        self._server.close()
        messages, rest = [], self.received
        while rest:
            length, _, rest = rest.partition(b" ")
            messages.append(rest[: int(length)])
            rest = rest[int(length) :]
        return messages


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    """A syslog server of UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        yield server


def port(server: socket.socket) -> int:
    number: int = server.getsockname()[1]
    return number


def test_tcp(nagra: HeadEnd) -> None:
    long = add_event("nagra", 600, details={"text": "ä\n" * 100_000})
    receiver = Receiver()
    assert run_export("--syslog", receiver.address) == []
    (message,) = receiver.messages()
    header, event = parse_message(message)
    assert (header[1], header[3]) == ("110", socket.gethostname()), "facility 13, informational"
    assert (event["id"], event["details"]) == (event_id(long), {"text": "ä\n" * 100_000})


def test_security_events_are_warnings(nagra: HeadEnd) -> None:
    SecurityEvent.unscoped.create(tenant_id="nagra", kind="session_token_reused", subject="1")
    age_events()
    receiver = Receiver()
    run_export("--syslog", f"tcp:{receiver.address}")
    (message,) = receiver.messages()
    assert parse_message(message)[0][1] == "108", "facility 13, warning"


def test_udp(nagra: HeadEnd, datagrams: socket.socket) -> None:
    long = add_event("nagra", 600, details={"text": "x" * 70_000}, reason="long")
    short = add_event("nagra", 300, details={"text": "x" * 10_000})
    run_export("--syslog", f"udp:127.0.0.1:{port(datagrams)}")
    _, event = parse_message(datagrams.recv(100_000))
    assert (event["id"], event["reason"], list(event["details"])) == (
        event_id(long),
        "long",
        ["omitted_bytes"],
    )
    assert event["details"]["omitted_bytes"] > 70_000
    _, event = parse_message(datagrams.recv(100_000))
    assert (event["id"], event["details"]) == (event_id(short), {"text": "x" * 10_000})


def test_unix_socket(nagra: HeadEnd, tmp_path: Path) -> None:
    event = add_event("nagra")
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(PATIENCE)
        run_export("--syslog", str(path))
        _, received = parse_message(server.recv(100_000))
    assert received["id"] == event_id(event)


@pytest.mark.parametrize("address", ["127.0.0.1:{closed}", "/nowhere/log"])
def test_a_receiver_that_does_not_exist_is_an_error(nagra: HeadEnd, address: str, tmp_path: Path) -> None:
    add_event("nagra")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = port(server)
    with pytest.raises(CommandError, match=r"Connection refused|No such file or directory"):
        run_export("--syslog", address.format(closed=closed), "--cursor", str(tmp_path / "cursor"))
    assert not (tmp_path / "cursor").exists()


def test_a_receiver_that_disconnects_keeps_the_cursor(nagra: HeadEnd, tmp_path: Path) -> None:
    """What was sent since the last window is sent again."""
    cursor = tmp_path / "cursor"
    add_many_events("nagra", 100, details={"text": "x" * 100_000})
    with socket.create_server(("127.0.0.1", 0)) as server:

        def disconnect() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10)

        thread = threading.Thread(target=disconnect)
        thread.start()
        with pytest.raises(CommandError, match=r"^syslog: (Connection reset by peer|Broken pipe)$"):
            run_export("--syslog", f"127.0.0.1:{port(server)}", "--cursor", str(cursor))
        thread.join(PATIENCE)
    receiver = Receiver()
    run_export("--syslog", receiver.address, "--cursor", str(cursor))
    assert len(receiver.messages()) == 100
