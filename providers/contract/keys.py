"""The keys that a strategy may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.contract.verdict import Refusal


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
    """The keys of one tenant, by `kid`. The tenant of an identity comes from here, never from a token.

    `decoy` is a key like those: to check a signature with it costs an unknown `kid` what a known one costs.
    """

    tenant: str
    keys: Mapping[str, TrustedKey]
    decoy: TrustedKey | None = None

    def get(self, kid: str) -> TrustedKey | None:
        """Return the key of that `kid`, in force or not."""
        return self.keys.get(kid)
