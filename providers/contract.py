"""The contract between the gate and a provider: what a strategy declares, is given, and answers.

Read this file first. A provider is a Django app with one `Strategy`; it declares what it wants from the
caller (`Parameters`) and from staff (`Settings`), and does one thing: `verify`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

from django import forms
from django.core.validators import MaxLengthValidator
from rest_framework import serializers

PARAMETER_MAX_LENGTH = 8192
"""Characters in the value of a parameter, unless it declares less."""


TEXT = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
"""An account ID or a jti: 1 to 255 characters, and none that controls something or cannot be stored."""


class Endpoint(enum.Enum):
    """A call that a service can answer: its name in discovery, and its path relative to `/ags`."""

    GET_SESSION_TOKEN = "/getSessionToken"
    SIGNON_WITH_SESSION_TOKEN = "/signOnWithSessionToken"
    SIGNOUT = "/signOut"


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
    IDENTITY_INVALID = "identity_invalid"

    # The signature holds: the caller is told precisely.
    PAYLOAD_MALFORMED = "payload_malformed"
    TYPE_MISMATCH = "type_mismatch"
    AUDIENCE_MISMATCH = "audience_mismatch"
    CLAIM_MISSING = "claim_missing"
    CLAIM_INVALID = "claim_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    REPLAYED = "replayed"
    TENANT_MISMATCH = "tenant_mismatch"


class Refused(Exception):
    """Raised by `Strategy.verify` when the parameters do not prove an identity.

    `claim` names the claim at fault, never its value.
    """

    def __init__(self, refusal: Refusal, claim: str | None = None) -> None:
        super().__init__(refusal, claim)
        self.refusal = refusal
        self.claim = claim


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that the tenant signs with, as a strategy sees it.

    `not_before` and `not_after` are seconds since the epoch; `material` is None when the stored secret
    could not be decrypted, otherwise the bytes of a secret or a public key of `cryptography`.
    """

    id: int | None
    kid: str
    algorithm: str
    material: Any = field(repr=False)
    in_force: bool = True
    not_before: float | None = None
    not_after: float | None = None

    def refusal(self, now: float) -> Refusal | None:
        """Say why this key may not be relied on at `now`, or None."""
        if self.material is None:
            return Refusal.KEY_UNREADABLE
        early = self.not_before is not None and now < self.not_before
        late = self.not_after is not None and now >= self.not_after
        return Refusal.KEY_NOT_IN_FORCE if early or late or not self.in_force else None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one tenant, by `kid`. The tenant of an identity comes from here, never from a token."""

    tenant: str
    keys: Mapping[str, TrustedKey]

    def get(self, kid: str) -> TrustedKey | None:
        """Return the key of that `kid`, in force or not."""
        return self.keys.get(kid)


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


class Parameter(serializers.CharField):
    """One named string that the caller sends, as discovery lists it. Nothing is trimmed or converted."""

    def __init__(
        self,
        *,
        description: str,
        max_length: int = PARAMETER_MAX_LENGTH,
        password: bool = False,
        required: bool = True,
    ) -> None:
        super().__init__(
            help_text=description,
            max_length=max_length,
            required=required,
            trim_whitespace=False,
            allow_blank=True,  # a string like any other: it is for verify() to say what it proves
            style={"input_type": "password"} if password else {},
        )
        # NUL and lone surrogates, which the base class would look for, do not pass the JSON parser.
        self.validators = [MaxLengthValidator(max_length)]

    @property
    def is_password(self) -> bool:
        """Whether a client should hide what is typed."""
        return self.style.get("input_type") == "password"


class Declaration:
    """The parameters of an endpoint, prepared once from the serializer that declares them."""

    def __init__(self, serializer: type[serializers.Serializer[Any]]) -> None:
        self.parameters = serializer()
        """One shared instance; only `run_validation` may be called on it."""
        self.declared = cast("Mapping[str, Parameter]", dict(self.parameters.fields))
        """The parameters by the name that discovery shows."""
        self.names: Mapping[str, str] = {name.lower(): name for name in self.declared}
        """The names by their lower-case spelling: clients send `username` for `Username`."""


class SessionTokenSettings(forms.Form):
    """What staff configure for any service that answers `getSessionToken`."""

    session_token_ttl = forms.IntegerField(
        label="Session token lifetime",
        min_value=1,
        max_value=3600,
        initial=300,
        help_text="Seconds in which a session token can be redeemed. At most 3600.",
    )


class Strategy:
    """One way of proving who somebody is.

    `slug` is stored with each service and never changes; `label` is what staff read. An instance is shared by
    all threads and keeps no state of a request.
    """

    slug: ClassVar[str]
    label: ClassVar[str]
    endpoints: ClassVar[tuple[Endpoint, ...]]
    debug_only: ClassVar[bool] = False
    Parameters: ClassVar[type[serializers.Serializer[Any]]]
    Settings: ClassVar[type[forms.Form]]

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return whom `parameters` prove, judged by `settings` (the cleaned form) and `keys`.

        Raises `Refused`. Reads no database and writes nothing.
        """
        raise TypeError(f"{type(self).__name__} declares no verify()")

    @cached_property
    def declaration(self) -> Declaration:
        """Its parameters, prepared."""
        return Declaration(self.Parameters)
