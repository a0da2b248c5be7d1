"""A server with a wrong clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.server import ServerProcess

HOUR = 3600


@contextmanager
def server_with_moved_clock(seconds: int, **changes: str) -> Iterator[ServerProcess]:
    """Run a server that need not become ready."""
    server = ServerProcess(
        MOVED_CLOCK=str(seconds), DJANGO_SETTINGS_MODULE="tests.live.moved_clock_settings", **changes
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
