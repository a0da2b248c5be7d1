"""What AGS records about the credentials of a request, besides the reason why they failed."""

from contextvars import ContextVar
from typing import Any, Protocol


class LogContext(Protocol):
    """`kid`: the key ID in the header of a token, verified or not. It has the form of a key ID.

    `facts`: what explains a refusal, as JSON values by name, such as the difference between two clocks. Staff
    and the developers of the head-end read them, so they contain no secret, token or account ID.
    """

    kid: str | None
    facts: dict[str, Any]


log_context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)
"""The log context of the current request; None outside of requests of the API."""
