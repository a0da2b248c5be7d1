"""What AGS logs and counts about the credentials of a request, whether or not they are accepted."""

from contextvars import ContextVar
from typing import Protocol


class LogContext(Protocol):
    """`kid`: the key ID in the header of a token, verified or not. It has the form of a key ID.

    `key_id`: the ID of the stored key with which the signature of the token is valid, also if the key is not
    in force. `token_age`: the seconds from `iat` of the token to the time of AGS; negative if `iat` is later.
    """

    kid: str | None
    key_id: int | None
    token_age: float | None


log_context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)
"""The log context of the current request; None outside of requests of the API."""
