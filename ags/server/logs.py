"""Log formatters: JSON for log collectors, text for terminals."""

import json
import logging
import os
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from math import modf
from typing import Any

from ags import __version__

# No line contains the source location, thread, process or task, so Python need not determine them (the
# logging HOWTO, "Optimization").
logging._srcfile = None  # noqa: SLF001 - the documented way
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging.logAsyncioTasks = False  # type: ignore[attr-defined] # since Python 3.12

MAX_CHAINED_EXCEPTIONS = 10

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED_NAMES = _STANDARD_ATTRIBUTES | {"time", "level", "logger", "version"}


def _type_name(value: object) -> str:
    """Replaces objects in log lines, because their text may contain input of a caller."""
    return type(value).__qualname__


_encode = json.JSONEncoder(default=_type_name).encode
_JSON_TYPES = (str, int, float, list, tuple, dict)


@lru_cache(maxsize=2)
def _format_second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _timestamp(created: float) -> str:
    """Return `isoformat(timespec="milliseconds")` of seconds since the epoch, but faster."""
    fraction, seconds = modf(created)
    carried, microseconds = divmod(round(fraction * 1_000_000), 1_000_000)
    return f"{_format_second(seconds + carried)}.{microseconds // 1000:03}+00:00"


class _Formatter(logging.Formatter):
    """Formats exceptions without their messages, which may contain input of a caller."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """The original cause is the first of a chain."""
        error: BaseException | None = ei[1]
        parts: list[str] = []
        while error is not None and len(parts) < MAX_CHAINED_EXCEPTIONS:
            stack = "".join(traceback.format_tb(error.__traceback__))
            parts.insert(0, f"{stack}{type(error).__qualname__}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(parts)


class JSONFormatter(_Formatter):
    """One JSON object per line: time in UTC, level, logger, message, process, version, `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": os.getpid(),
            "version": __version__,
            **{name: value for name, value in vars(record).items() if name not in _RESERVED_NAMES},
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return _encode(line)


class TextFormatter(_Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        extra = (
            f"{name}={value if isinstance(value, _JSON_TYPES) else _type_name(value)}"
            for name, value in vars(record).items()
            if name not in _STANDARD_ATTRIBUTES and value is not None
        )
        return " ".join([super().formatMessage(record), *extra])
