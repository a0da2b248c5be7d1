"""The metrics of this process, and those of all processes of the server, which share them once a second."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ags.database.tasks import PeriodicTask
from ags.operations.metrics.table import METRICS
from ags.operations.metrics.values import Values, merge
from ags.server import shared_counter, shared_data
from ags.server.load import load

SHARE_INTERVAL = 1.0
"""Seconds between two writes of the shared values."""

MAX_AGE = 10.0
"""Seconds after which the gauges of a process are ignored: it was killed, and no other has its slot."""

CLOSE_TIMEOUT = 1.0

log = logging.getLogger(__name__)


class _Sharing:
    """Shares the values of this process with the others, in the slot of the process."""

    def __init__(self, data: shared_data.SharedData) -> None:
        self._data, self._slot = data, shared_counter.current_slot
        self._base = {name: values for name, values in _decode(data.read(self._slot)) if _is_cumulative(name)}
        self._due_at = time.monotonic()
        self._task = PeriodicTask(self._share, SHARE_INTERVAL)

    async def close(self) -> None:
        await self._task.close(CLOSE_TIMEOUT)

    async def _share(self) -> None:
        """Raises nothing."""
        load.loop_delay = max(time.monotonic() - self._due_at, 0.0)
        try:
            self.share()
        except Exception as error:  # noqa: BLE001 - the task must continue
            log.warning("metrics not shared: %s", type(error).__name__)
        self._due_at = time.monotonic() + SHARE_INTERVAL

    def share(self) -> None:
        values = read_process()
        for name, base in self._base.items():
            merge(_KINDS[name], values.setdefault(name, {}), base)
        self._data.write(self._slot, _encode(values, alive=not self._task.is_closing))


_KINDS = {metric.name: metric.kind for metric in METRICS}

_sharing: _Sharing | None = None


def open_metrics() -> None:
    """Begin to share the values of this process, if it belongs to a server."""
    global _sharing  # noqa: PLW0603 - once for each process
    if shared_data.shared_data is not None:
        _sharing = _Sharing(shared_data.shared_data)


async def close_metrics() -> None:
    global _sharing  # noqa: PLW0603
    if _sharing is not None:
        await _sharing.close()
        _sharing = None


def read_process() -> dict[str, Values]:
    """Return the values of this process by the name of their metric, in its event loop."""
    return {metric.name: dict(metric.read()) for metric in METRICS}


def read_server() -> Mapping[str, Values]:
    """Return the values of all processes of the server, by the name of their metric."""
    if _sharing is None or shared_data.shared_data is None:
        return read_process()
    _sharing.share()  # this process is up to date, and the others are at most a second behind
    totals: dict[str, Values] = {metric.name: {} for metric in METRICS}
    for _, data in shared_data.shared_data.read_all():
        for name, values in _decode(data):
            merge(_KINDS[name], totals[name], values)
    return totals


def _is_cumulative(name: str) -> bool:
    return _KINDS[name].is_cumulative


def _encode(values: Mapping[str, Values], *, alive: bool) -> bytes:
    document = {
        "written_at": time.monotonic() if alive else 0.0,
        "values": {name: list(each.items()) for name, each in values.items()},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _decode(data: bytes | None) -> Iterator[tuple[str, Values]]:
    """Yield the values by name. Those of gauges only if the process is alive."""
    if data is None:
        return
    document: Any = json.loads(data)
    is_alive = time.monotonic() - document["written_at"] < MAX_AGE
    for name, items in document["values"].items():
        if is_alive or _is_cumulative(name):
            yield name, {tuple(labels): value for labels, value in items}
