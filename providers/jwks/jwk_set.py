"""A JWK Set (RFC 7517, section 5) as a key ring, and as check results for staff."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

from providers.contract import CheckResult, KeyRing, TrustedKey
from providers.jwks.jwk import parse_jwk
from providers.jwks.strength import UnusableKey
from providers.strict_json import NotStrictJSON, parse
from providers.upstream.response import invalid_response

MAX_KEYS = 100
DEPTH = 8  # maximum nesting of the JSON of a key or a JWK Set
_MAX_LISTED = 10


@dataclass(frozen=True, slots=True, eq=False)
class JWKSet:
    """The usable keys, at least one, and the number of unusable keys by message of `UnusableKey`."""

    key_ring: KeyRing
    unused: Counter[str]

    def check_results(self, subject: str) -> list[CheckResult]:
        """Return the results for `Strategy.check`. `subject` is the subject of the first sentence."""
        keys = self.key_ring.keys
        names = [f"{key.kid} ({key.algorithm})" for key in islice(keys.values(), _MAX_LISTED)]
        if len(keys) > _MAX_LISTED:
            names.append(f"and {len(keys) - _MAX_LISTED} more")
        message = f"{subject} has {_format_count(len(keys), 'usable ')}: {', '.join(names)}."
        results = [CheckResult(True, message)]
        if self.unused:
            results.append(CheckResult(None, f"Not used: {_format_reasons(self.unused)}."))
        return results


@dataclass(frozen=True, slots=True)
class JWKSetReader:
    """Parses a JWK Set. Raises `UpstreamUnavailable(RESPONSE_INVALID)`."""

    tenant: str
    algorithms: tuple[str, ...]

    def __call__(self, raw: bytes) -> JWKSet:
        try:
            return parse_jwk_set(self.tenant, parse(raw, DEPTH), self.algorithms)
        except NotStrictJSON as error:
            raise invalid_response(f"its JWK Set is not valid JSON: {error}") from None
        except UnusableKey as reason:
            raise invalid_response(f"its JWK Set {reason}") from None


def parse_jwk_set(tenant: str, value: Any, algorithms: Sequence[str]) -> JWKSet:
    """Return the usable keys of a JWK Set.

    Different keys with the same `kid` are ambiguous and not used. Raises `UnusableKey` if no key is usable;
    its message continues a sentence that begins with "the JWK Set".
    """
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise UnusableKey("is not a JWK Set")
    if len(listed) > MAX_KEYS:
        raise UnusableKey(f"has more than {MAX_KEYS} keys")
    by_kid: dict[str, list[TrustedKey]] = {}
    unused: Counter[str] = Counter()
    for jwk in listed:
        try:
            key = parse_jwk(jwk, algorithms)
        except UnusableKey as reason:
            unused[str(reason)] += 1
        else:
            same = by_kid.setdefault(key.kid, [])
            if key not in same:
                same.append(key)
    keys = {kid: same[0] for kid, same in by_kid.items() if len(same) == 1}
    if ambiguous := sum(len(same) for same in by_kid.values() if len(same) > 1):
        unused["with the same kid as another key"] = ambiguous
    if not keys:
        raise UnusableKey(f"has no usable key: {_format_reasons(unused)}" if unused else "is empty")
    return JWKSet(create_key_ring(tenant, keys.values()), unused)


def create_key_ring(tenant: str, keys: Iterable[TrustedKey]) -> KeyRing:
    """Return a key ring. Its dummy key is one of the keys: public keys need not be kept secret."""
    by_kid = {key.kid: key for key in keys}
    return KeyRing(tenant, MappingProxyType(by_kid), dummy_key=next(iter(by_kid.values())))


def _format_count(count: int, adjective: str = "") -> str:
    return f"{count} {adjective}{'key' if count == 1 else 'keys'}"


def _format_reasons(unused: Counter[str]) -> str:
    return "; ".join(f"{_format_count(count)} {reason}" for reason, count in unused.items())
