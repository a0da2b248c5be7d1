"""A JWK Set (RFC 7517, section 5) as a key ring, and as check results for staff."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

from providers.contract import CheckResult, KeyRing, TrustedKey, UpstreamFailure, UpstreamUnavailable
from providers.jwks.jwk import key_of
from providers.jwks.strength import Unusable
from providers.strict_json import NotStrictJSON, parse

KEYS_AT_MOST = 100
DEPTH = 8
"""Maximum nesting of the JSON of a key or a JWK Set."""

_NAMED = 10


@dataclass(frozen=True, slots=True, eq=False)
class JWKSet:
    """The usable keys, at least one, and the number of unusable keys by reason."""

    ring: KeyRing
    unused: Counter[str]

    def findings(self, whose: str) -> list[CheckResult]:
        """Say what is in it. `whose` begins the sentence."""
        count = len(self.ring.keys)
        names = [f"{key.kid} ({key.algorithm})" for key in islice(self.ring.keys.values(), _NAMED)]
        if count > _NAMED:
            names.append(f"and {count - _NAMED} more")
        found = [CheckResult(True, f"{whose} has {_counted(count, 'usable ')}: {', '.join(names)}.")]
        if self.unused:
            found.append(CheckResult(None, f"Not used: {_in_words(self.unused)}."))
        return found


@dataclass(frozen=True, slots=True)
class JWKSetReader:
    """Parses the JWK Set of a tenant's service, with the algorithms that the service allows."""

    tenant: str
    algorithms: tuple[str, ...]

    def __call__(self, raw: bytes) -> JWKSet:
        """Return the set. Raises `UpstreamUnavailable(RESPONSE_INVALID)`."""
        try:
            return key_set(self.tenant, parse(raw, DEPTH), self.algorithms)
        except NotStrictJSON as flaw:
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, f"its key set is malformed: {flaw}"
            ) from None
        except Unusable as reason:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, f"its key set {reason}") from None


def key_set(tenant: str, value: Any, algorithms: Sequence[str]) -> JWKSet:
    """Return the usable keys of a JWK Set.

    Different keys with the same `kid` are ambiguous and not used. Raises `Unusable` if no key is usable; its
    message continues a sentence that begins with "the key set".
    """
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise Unusable("is not a JWK Set")
    if len(listed) > KEYS_AT_MOST:
        raise Unusable(f"has more than {KEYS_AT_MOST} keys")
    found: dict[str, list[TrustedKey]] = {}
    unused: Counter[str] = Counter()
    for jwk in listed:
        try:
            key = key_of(jwk, algorithms)
        except Unusable as reason:
            unused[str(reason)] += 1
        else:
            same = found.setdefault(key.kid, [])
            if key not in same:
                same.append(key)
    keys = {kid: same[0] for kid, same in found.items() if len(same) == 1}
    if ambiguous := sum(len(same) for same in found.values() if len(same) > 1):
        unused["with the same kid as another key"] = ambiguous
    if not keys:
        raise Unusable(f"has no usable key: {_in_words(unused)}" if unused else "is empty")
    return JWKSet(ring(tenant, keys.values()), unused)


def ring(tenant: str, keys: Iterable[TrustedKey]) -> KeyRing:
    """Return a key ring. Any of the keys can be the dummy key, because all are public."""
    by_kid = {key.kid: key for key in keys}
    return KeyRing(tenant, MappingProxyType(by_kid), dummy_key=next(iter(by_kid.values())))


def _counted(count: int, which: str = "") -> str:
    return f"{count} {which}{'key' if count == 1 else 'keys'}"


def _in_words(unused: Counter[str]) -> str:
    return "; ".join(f"{_counted(count)} {reason}" for reason, count in unused.items())
