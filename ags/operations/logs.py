"""Log lines: JSON for a collector, text for a person at a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

# No line says where in the code it was written, or by which thread and process: Python need not find out
# (the logging HOWTO, "Optimization").
logging._srcfile = None  # noqa: SLF001 - the documented way
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_written = json.JSONEncoder(default=str).encode


def _added(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What the call added to the record."""
    return ((name, value) for name, value in vars(record).items() if name not in _STANDARD)


class JSONLines(logging.Formatter):
    """One JSON object a line: time in UTC, level, logger, message, what the call adds, and its exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _added(record):
            line.setdefault(name, value)
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return _written(line)


class ReadableLines(logging.Formatter):
    """Time, level, message, then what the call adds as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Append what the call added."""
        extra = (f"{name}={value}" for name, value in _added(record) if value is not None)
        return " ".join([super().formatMessage(record), *extra])
