"""Log lines: JSON for a collector, text for a person at a terminal."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from math import modf
from typing import Any

# No line says where in the code it was written, or by which thread, process and task: Python need not find
# out (the logging HOWTO, "Optimization").
logging._srcfile = None  # noqa: SLF001 - the documented way
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging.logAsyncioTasks = False  # type: ignore[attr-defined] # since Python 3.12

CHAIN_LIMIT = 10
"""The most exceptions of a chain that a line holds."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = _STANDARD | {"time", "level", "logger"}


def _type(value: object) -> str:
    """Return what a line holds of an object: its text may repeat what a caller sent."""
    return type(value).__qualname__


_written = json.JSONEncoder(default=_type).encode
_plain = (str, int, float, list, tuple, dict)


def _added(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What the call added to the record."""
    return ((name, value) for name, value in vars(record).items() if name not in _STANDARD)


@lru_cache(maxsize=2)
def _to_the_second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _timestamp(created: float) -> str:
    """Return what `isoformat(timespec="milliseconds")` would, for seconds since the epoch."""
    fraction, seconds = modf(created)
    carried, microseconds = divmod(round(fraction * 1_000_000), 1_000_000)
    return f"{_to_the_second(seconds + carried)}.{microseconds // 1000:03}+00:00"


class Lines(logging.Formatter):
    """Lines that hold the stack and type of an exception, and not its message: it may be a caller's text."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """Return stack and type of each, the first cause first."""
        error: BaseException | None = ei[1]
        found: list[str] = []
        while error is not None and len(found) < CHAIN_LIMIT:
            stack = "".join(traceback.format_tb(error.__traceback__))
            found.insert(0, f"{stack}{type(error).__qualname__}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(found)


class JSONLines(Lines):
    """One JSON object a line: time in UTC, level, logger, message, what the call adds, and its exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _RESERVED},
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return _written(line)


class ReadableLines(Lines):
    """Time, level, message, then what the call adds as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Append what the call added."""
        extra = (
            f"{name}={value if isinstance(value, _plain) else _type(value)}"
            for name, value in _added(record)
            if value is not None
        )
        return " ".join([super().formatMessage(record), *extra])
