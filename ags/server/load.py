"""How busy this process is, for metrics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ags.server.connection import Connection


@dataclass(slots=True)
class Load:
    """`dropped`: connections that were closed at a limit so far.

    `loop_delay`: seconds by which the event loop was late when it was measured last.
    """

    connections: Collection[Connection] = ()
    dropped: int = 0
    loop_delay: float = 0.0

    @property
    def requests(self) -> int:
        """The number of requests that were read and not answered yet, with those that wait in a pipeline."""
        return sum(len(connection.exchanges) for connection in self.connections)


load = Load()
"""That of this process. Empty on other ASGI servers."""
