"""Log lines: JSON for a collector, text for a person at a terminal."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

# No line says where in the code it was written, or by which thread and process: Python need not find out
# (the logging HOWTO, "Optimization").
logging._srcfile = None  # noqa: SLF001 - the documented way
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

_written = json.JSONEncoder(default=str).encode


class JSONLines(JsonFormatter):
    """One JSON object a line: time, level, logger, message, and what the call adds."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger"},
        )

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Write with an encoder that is there already."""
        return _written(log_data)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put the time first, in UTC."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        super().add_fields(log_data, record, message_dict)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ReadableLines(logging.Formatter):
    """Time, level, message, then what the call adds as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Append what the call added."""
        extra = (
            f"{name}={value}"
            for name, value in vars(record).items()
            if name not in _STANDARD and value is not None
        )
        return " ".join([super().formatMessage(record), *extra])
