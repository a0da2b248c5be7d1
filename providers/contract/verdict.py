"""What `verify` answers: whom a proof names, why it is refused, or why nothing can be said."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

TEXT = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
"""An account ID, a jti or what a person reads of an account: 1 to 255 characters, and none that controls
something or cannot be stored."""


def account_id_of(value: Any) -> str | None:
    """Return the account ID that a JSON value is: text, or the digits of an integer from 0 to 2^53 - 1.

    Of larger integers two readers may read different ones (RFC 8259, section 6). None: it is no account ID.
    """
    if type(value) is int and 0 <= value < 2**53:
        return str(value)
    return value if isinstance(value, str) and TEXT.fullmatch(value) else None


ACCOUNTS_AT_MOST = 50
"""Accounts that one proof may leave to choose from."""


class Refusal(enum.StrEnum):
    """Why a proof was not accepted. The value is the machine word that the log always holds."""

    # Nothing is proven yet: the caller is told `not_authenticated` and no more.
    MALFORMED = "malformed"
    HEADER_MEMBER_FORBIDDEN = "header_member_forbidden"
    KEY_UNKNOWN = "key_unknown"
    KEY_NOT_IN_FORCE = "key_not_in_force"
    KEY_UNREADABLE = "key_unreadable"
    ALGORITHM_MISMATCH = "algorithm_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    CREDENTIAL_UNKNOWN = "credential_unknown"
    TOKEN_INACTIVE = "token_inactive"
    IDENTITY_INVALID = "identity_invalid"

    # The signature holds, or the password is right: the caller is told precisely.
    PAYLOAD_MALFORMED = "payload_malformed"
    TYPE_MISMATCH = "type_mismatch"
    ISSUER_MISMATCH = "issuer_mismatch"
    AUDIENCE_MISMATCH = "audience_mismatch"
    AUTHORIZED_PARTY_MISMATCH = "authorized_party_mismatch"
    NONCE_MISMATCH = "nonce_mismatch"
    CLAIM_MISSING = "claim_missing"
    CLAIM_INVALID = "claim_invalid"
    CLAIM_MISMATCH = "claim_mismatch"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    REPLAYED = "replayed"
    TENANT_MISMATCH = "tenant_mismatch"
    ACCOUNT_AMBIGUOUS = "account_ambiguous"
    ACCOUNT_SUSPENDED = "account_suspended"
    ACCOUNT_CANCELLED = "account_cancelled"


class Refused(Exception):
    """Raised by `Strategy.verify` when the parameters do not prove an identity.

    `claim` names the claim at fault, never its value.
    """

    def __init__(self, refusal: Refusal, claim: str | None = None) -> None:
        super().__init__(refusal, claim)
        self.refusal = refusal
        self.claim = claim


class Outage(enum.StrEnum):
    """Why an upstream left it open whether a proof holds. The value is the machine word of the log."""

    SLOW = "upstream_slow"
    BUSY = "upstream_busy"
    AWAY = "upstream_away"
    UNTRUSTED = "upstream_untrusted"
    FORBIDDEN = "upstream_forbidden"
    TOO_LARGE = "upstream_too_large"
    WRONG = "upstream_wrong"
    REFUSES_US = "upstream_refuses_us"


MEANING = {
    Outage.SLOW: "it did not answer in time",
    Outage.BUSY: "as many requests wait for it already as may",
    Outage.AWAY: "it could not be reached, or hung up",
    Outage.UNTRUSTED: "its certificate is not one that is trusted for this name",
    Outage.FORBIDDEN: "its address is private, and AGS_PRIVATE_UPSTREAMS does not allow it",
    Outage.TOO_LARGE: "its answer is larger than anything it should say",
    Outage.WRONG: "its answer is not what it should be",
    Outage.REFUSES_US: "it does not accept the credentials that AGS has for it",
}
"""Each in words, for staff."""


class Unavailable(Exception):
    """Raised by `Strategy.verify` when its upstream left it open: the caller is told to try again (503).

    `detail` says more to staff than the outage's meaning does, where there is more; nothing secret, and
    nothing that the upstream has said.
    """

    def __init__(self, outage: Outage, detail: str = "") -> None:
        super().__init__(outage, detail)
        self.outage = outage
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or MEANING[self.outage]


@dataclass(frozen=True, slots=True)
class Identity:
    """What verification yields: whose account, proven by which key.

    `jti` is set when the proof may be accepted once only; `replayable_until` (seconds since the epoch) is
    then the last moment at which the proof would still verify under the widest settings. Raises
    `Refused(IDENTITY_INVALID)` when `account_id` or `jti` is not of the form `TEXT`, whatever the provider
    has let through.
    """

    account_id: str = field(repr=False)
    key_id: int | None = None
    jti: str | None = field(default=None, repr=False)
    replayable_until: float | None = None

    def __post_init__(self) -> None:
        if not all(TEXT.fullmatch(text) for text in (self.account_id, self.jti) if text is not None):
            raise Refused(Refusal.IDENTITY_INVALID)


@dataclass(frozen=True, slots=True)
class Account:
    """One of several accounts that a proof names; `information` is what a person knows it by."""

    id: str = field(repr=False)
    information: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """What verification yields when the proof names several accounts: the subscriber chooses one.

    Raises `Refused(IDENTITY_INVALID)` unless there are 2 to `ACCOUNTS_AT_MOST`, each named once, and each ID
    and information of the form `TEXT`.
    """

    accounts: tuple[Account, ...]
    key_id: int | None = None

    def __post_init__(self) -> None:
        texts = [text for account in self.accounts for text in (account.id, account.information)]
        if (
            not 2 <= len(self.accounts) <= ACCOUNTS_AT_MOST
            or len({account.id for account in self.accounts}) != len(self.accounts)
            or not all(TEXT.fullmatch(text) for text in texts)
        ):
            raise Refused(Refusal.IDENTITY_INVALID)
