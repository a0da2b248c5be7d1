"""Why the gate does not give a client app what it asks for."""

from __future__ import annotations

import time
from enum import StrEnum

from tenants.tenant_snapshot import TenantSnapshot


class InvalidReason(StrEnum):
    """Why something does not stand any more, from the widest level to the narrowest."""

    TENANT_NOT_AVAILABLE = "tenant_not_available"
    SERVICE_NOT_AVAILABLE = "service_not_available"
    KEY_NOT_IN_FORCE = "key_not_in_force"
    ACCOUNT_CANCELLED = "account_cancelled"
    ACCOUNT_SUSPENDED = "account_suspended"
    DEVICE_DELETED = "device_deleted"
    DEVICE_DISABLED = "device_disabled"
    SIGN_ON_ENDED = "sign_on_ended"
    REVOKED = "revoked"


class RejectReason(StrEnum):
    """What else than a fault of what stands behind a token can be wrong; the machine word of the log."""

    TOKEN_MISSING = "token_missing"  # noqa: S105 - a word
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a word
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a word
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a word
    TOKEN_SPENT = "token_spent"  # noqa: S105 - a word
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a word
    DEVICE_UNKNOWN = "device_unknown"
    DEVICE_LIMIT_REACHED = "device_limit_reached"
    TOO_MANY_REFRESHES = "too_many_refreshes"


class TokenRejected(Exception):
    """Raised by what redeems, refreshes and signs out when the answer is no.

    `retry_after`: seconds after which the same request can succeed, where that is known.
    """

    def __init__(self, reason: RejectReason | InvalidReason, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class StaleSnapshot(Exception):
    """The tenant has changed since that view of it was read: read it again and judge again.

    `since`: the moment of `time.monotonic()` at which the database showed it, now if it is not given.
    """

    def __init__(self, seen: TenantSnapshot, since: float | None = None) -> None:
        super().__init__()
        self.seen = seen
        self.since = time.monotonic() if since is None else since


class NoActiveSigningKey(Exception):
    """The tenant has no signing key that can be used."""
