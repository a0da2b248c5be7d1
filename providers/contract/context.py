"""What AGS logs about the credentials of a request, whether or not they are valid."""

from contextvars import ContextVar
from typing import Protocol


class LogContext(Protocol):
    """`kid`: the key ID in the header of a token, verified or not. It has the form of a key ID."""

    kid: str | None


log_context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)
"""The log context of the current request; None outside of requests of the API."""
