"""Exceptions of the session services. `ags.api.errors` maps them to responses."""

import time
from enum import StrEnum

from tenants.tenant_snapshot import TenantSnapshot


class InvalidReason(StrEnum):
    """Why a token is not valid any more, from the widest level to the narrowest. Values appear in the log."""

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
    """Other reasons to reject a token. The value is the reason code written to the log."""

    TOKEN_MISSING = "token_missing"  # noqa: S105 - a reason code
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a reason code
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a reason code
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason code
    TOKEN_SPENT = "token_spent"  # noqa: S105 - a reason code
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a reason code
    DEVICE_UNKNOWN = "device_unknown"
    DEVICE_LIMIT_REACHED = "device_limit_reached"
    TOO_MANY_REFRESHES = "too_many_refreshes"
    TOO_MANY_SIGN_ONS = "too_many_sign_ons"


class TokenRejected(Exception):
    """`retry_after`: seconds after which the same request can succeed, if known."""

    def __init__(self, reason: RejectReason | InvalidReason, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class StaleSnapshot(Exception):
    """The tenant has changed since the snapshot was read. The caller reads it again and retries.

    `since`: the `time.monotonic()` at which the database reported the change; the default is now.
    """

    def __init__(self, snapshot: TenantSnapshot, since: float | None = None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.since = time.monotonic() if since is None else since


class NoActiveSigningKey(Exception):
    """The tenant has no usable signing key."""
