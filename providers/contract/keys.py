"""The keys that a strategy verifies with."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.contract.results import FailureReason


class KeyKind(enum.Enum):
    """What a key of a tenant contains. A strategy gets the keys of one kind only."""

    SHARED_SECRET = "shared secret"
    PUBLIC_KEY = "public key"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key with which a tenant signs tokens, and a strategy verifies them.

    `not_before` and `not_after` are seconds since the epoch. `material` is the bytes of a shared secret, a
    public key of `cryptography`, or None if the stored secret cannot be decrypted.
    """

    id: int | None
    kid: str
    algorithm: str
    material: Any = field(repr=False)
    in_force: bool = True
    not_before: float | None = None
    not_after: float | None = None

    def failure_reason(self, now: float) -> FailureReason | None:
        """Return why this key cannot be used at `now` (seconds since the epoch), or None if it can."""
        if self.material is None:
            return FailureReason.KEY_UNREADABLE
        early = self.not_before is not None and now < self.not_before
        late = self.not_after is not None and now >= self.not_after
        return FailureReason.KEY_NOT_IN_FORCE if early or late or not self.in_force else None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one tenant, by `kid`. The tenant of an identity comes from here, never from a token.

    `dummy_key` is used to check the signature if the `kid` is unknown, so that an unknown and a known `kid`
    take the same time.
    """

    tenant: str
    keys: Mapping[str, TrustedKey]
    dummy_key: TrustedKey | None = None

    def get(self, kid: str) -> TrustedKey | None:
        """Return the key with that `kid`, whether or not it is in force."""
        return self.keys.get(kid)

    def kids_in_force(self, now: float) -> list[str]:
        """Return the sorted IDs of the keys that can be used at `now` (seconds since the epoch)."""
        return sorted(kid for kid, key in self.keys.items() if key.failure_reason(now) is None)
