"""The results of `verify`: an identity, a choice of accounts, or an exception that gives the reason."""

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.contract.facts import clean_fact

IDENTIFIER = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
"""The form of account IDs, `jti` and account information: 1 to 255 characters, without control characters
and surrogates."""


def parse_account_id(value: Any) -> str | None:
    """Return the account ID in a JSON value, or None if it is not valid.

    Valid are strings of the form `IDENTIFIER` and integers from 0 to 2^53 - 1. JSON parsers do not agree on
    larger integers (RFC 8259, section 6).
    """
    if type(value) is int and 0 <= value < 2**53:
        return str(value)
    return value if isinstance(value, str) and IDENTIFIER.fullmatch(value) else None


MAX_ACCOUNTS = 50  # of a `Choice`
MAX_CLAIMS = 16
MAX_CLAIM_NAME_LENGTH = 64

Claim = str | int | float | bool | None  # a JSON scalar


class FailureReason(enum.StrEnum):
    """Why verification failed. The value is the `reason` in the log."""

    # Not authenticated: the response is `not_authenticated` without details.
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

    # The signature or the password is valid: the response contains the precise reason.
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


class VerificationFailed(Exception):
    """Raised by `Strategy.verify` if the parameters do not authenticate an account.

    `claim` is the name of the invalid claim, never its value.

    `facts` explain the failure to staff and to the developers of the head-end, such as `exp=-312`: the claim
    is 312 seconds before the clock of AGS. They must contain no secret, token, account ID or username. Their
    values may come from a client: `clean_fact` limits them. Facts that are None are left out.
    """

    def __init__(self, reason: FailureReason, claim: str | None = None, **facts: Any) -> None:
        super().__init__(reason, claim)
        self.reason = reason
        self.claim = claim
        self.facts = {name: clean_fact(value) for name, value in facts.items() if value is not None}


class UpstreamFailure(enum.StrEnum):
    """Why an upstream gave no usable response. The value is the `reason` in the log."""

    TIMEOUT = "upstream_slow"
    OVERLOADED = "upstream_busy"
    UNREACHABLE = "upstream_away"
    CERTIFICATE_UNTRUSTED = "upstream_untrusted"
    ADDRESS_FORBIDDEN = "upstream_forbidden"
    RESPONSE_TOO_LARGE = "upstream_too_large"
    RESPONSE_INVALID = "upstream_wrong"
    CREDENTIALS_REJECTED = "upstream_refuses_us"


UPSTREAM_FAILURE_MESSAGES = {
    UpstreamFailure.TIMEOUT: "it did not respond in time",
    UpstreamFailure.OVERLOADED: "too many requests are already waiting for it",
    UpstreamFailure.UNREACHABLE: "it could not be reached, or closed the connection",
    UpstreamFailure.CERTIFICATE_UNTRUSTED: "its certificate is not trusted for this name",
    UpstreamFailure.ADDRESS_FORBIDDEN: "its address is private, and AGS_PRIVATE_UPSTREAMS does not allow it",
    UpstreamFailure.RESPONSE_TOO_LARGE: "its response is too large",
    UpstreamFailure.RESPONSE_INVALID: "its response is invalid",
    UpstreamFailure.CREDENTIALS_REJECTED: "it rejects the credentials of AGS",
}
"""Shown to staff."""


class UpstreamUnavailable(Exception):
    """Raised by `Strategy.verify` if its upstream gave no usable response. The caller gets a 503.

    `detail` replaces the message of the failure for staff. It must contain no secret and nothing from the
    response.
    """

    def __init__(self, failure: UpstreamFailure, detail: str = "") -> None:
        super().__init__(failure, detail)
        self.failure = failure
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or UPSTREAM_FAILURE_MESSAGES[self.failure]


@dataclass(frozen=True, slots=True)
class Identity:
    """The account that `verify` has authenticated, and the key that it was verified with.

    `jti` is set if the credentials may be used only once. `replayable_until` (seconds since the epoch) is
    then the latest time at which they could pass verification under any settings.

    `claims` is reserved for later use: AGS validates it and does not use it yet. It holds at most 16 JSON
    scalars. Names have the form `IDENTIFIER` and at most 64 characters. Strings are empty or have that form.

    Raises `VerificationFailed(IDENTITY_INVALID)` if `account_id`, `jti` or `claims` is not valid.
    """

    account_id: str = field(repr=False)
    key_id: int | None = None
    jti: str | None = field(default=None, repr=False)
    replayable_until: float | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not all(IDENTIFIER.fullmatch(text) for text in (self.account_id, self.jti) if text is not None):
            raise VerificationFailed(FailureReason.IDENTITY_INVALID)
        if self.claims != {} and not _are_valid(self.claims):
            raise VerificationFailed(FailureReason.IDENTITY_INVALID, "claims")


def _are_valid(claims: object) -> bool:
    if not isinstance(claims, Mapping) or len(claims) > MAX_CLAIMS:
        return False
    return all(_is_valid_name(name) and _is_valid(value) for name, value in claims.items())


def _is_valid_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_CLAIM_NAME_LENGTH and bool(IDENTIFIER.fullmatch(name))


def _is_valid(value: object) -> bool:
    if isinstance(value, str):
        return not value or IDENTIFIER.fullmatch(value) is not None
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < 2**53)


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a `Choice`. `information` describes it to the subscriber."""

    id: str = field(repr=False)
    information: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """The accounts that `verify` has authenticated, of which the subscriber chooses one.

    Raises `VerificationFailed(IDENTITY_INVALID)` unless there are 2 to `MAX_ACCOUNTS` accounts with different
    IDs, and all IDs and information have the form `IDENTIFIER`.
    """

    accounts: tuple[Account, ...]
    key_id: int | None = None

    def __post_init__(self) -> None:
        texts = [text for account in self.accounts for text in (account.id, account.information)]
        if (
            not 2 <= len(self.accounts) <= MAX_ACCOUNTS
            or len({account.id for account in self.accounts}) != len(self.accounts)
            or not all(IDENTIFIER.fullmatch(text) for text in texts)
        ):
            raise VerificationFailed(FailureReason.IDENTITY_INVALID)
