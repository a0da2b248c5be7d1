"""Where the events of an export go: standard output, or syslog (RFC 5424)."""

import errno
import os
import re
import select
import socket
from dataclasses import dataclass, replace
from typing import Any

from ags.operations.event_export import format_event, format_timestamp
from ags.sessions.audit_trail import AuditEvent
from ags.sessions.models import SecurityEvent

TIMEOUT = 60.0
"""Seconds in which a receiver must accept a message."""

CONNECT_TIMEOUT = 10.0

FACILITY = 13
"""Log audit (RFC 5424, section 6.2.1)."""

WARNING, INFORMATIONAL = 4, 6

_ADDRESS_PATTERN = re.compile(r"(?:(tcp|udp):)?(?:\[([0-9A-Fa-f:.]++)\]|([^\s:/\[\]]++)):([0-9]{1,5})")


class LineSink:
    """Writes lines of JSON to a text stream. `OutputClosed` if its reader has gone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, event: AuditEvent) -> None:
        try:
            self._stream.write(format_event(event))
        except BrokenPipeError:
            raise OutputClosed from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise OutputClosed from None


class OutputClosed(Exception):
    """The reader of standard output has closed it, as `head` does."""


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """`protocol`: `tcp`, `udp`, or `unix`, whose `host` is a path."""

    protocol: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "SyslogAddress":
        """Parse HOST:PORT, udp:HOST:PORT or a path. Raises ValueError."""
        if text.startswith("/"):
            return cls("unix", text)
        match = _ADDRESS_PATTERN.fullmatch(text)
        if match is None or not 1 <= int(match[4]) <= 65_535:
            raise ValueError(text)
        return cls(match[1] or "tcp", match[2] or match[3], int(match[4]))

    def connect(self) -> socket.socket:
        """Raises OSError."""
        if self.protocol == "tcp":
            connected = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT)
        elif self.protocol == "udp":
            family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
            connected = _connect_datagrams(family, address)
        else:
            connected = _connect_datagrams(socket.AF_UNIX, self.host)
        connected.settimeout(TIMEOUT)
        return connected


def _connect_datagrams(family: int, address: Any) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


class SyslogSink:
    """Sends each event as a message of RFC 5424. TCP: with its length before it (RFC 6587, section 3.4.1).

    Not by `SysLogHandler`: its messages have the format of RFC 3164 without a frame, and it hides errors.
    """

    def __init__(self, address: SyslogAddress) -> None:
        self._is_stream = address.protocol == "tcp"
        self._socket = address.connect()
        self._host = re.sub(r"[^!-~]", "", socket.gethostname())[:255] or "-"

    def close(self) -> None:
        self._socket.close()

    def write(self, event: AuditEvent) -> None:
        """Raises OSError. A datagram that is too long is sent without `details`, but with their length."""
        message = self._format(event)
        if self._is_stream:
            self._raise_if_closed()
            self._socket.sendall(b"%d %b" % (len(message), message))
            return
        try:
            self._socket.send(message)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            details = {"omitted_bytes": len(message)}
            self._socket.send(self._format(replace(event, details=details)))

    def flush(self) -> None:
        if self._is_stream:
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        """Raise ConnectionError if the receiver has closed the connection: it loses what is sent now."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        if readable and not self._socket.recv(1024):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _format(self, event: AuditEvent) -> bytes:
        severity = WARNING if event.kind in SecurityEvent.Kind.values else INFORMATIONAL
        header = (
            f"<{FACILITY * 8 + severity}>1 {format_timestamp(event.time)} {self._host} ags {os.getpid()} "
            f"{event.kind} -"
        )
        return f"{header} {format_event(event)}".encode("ascii")
