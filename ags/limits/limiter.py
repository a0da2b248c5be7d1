"""A limit: how often something may happen for a key in a window."""

from __future__ import annotations

import contextlib
import hmac
from dataclasses import dataclass

from ags.limits.memory import LocalCounters
from ags.limits.redis import RedisUnavailable, get_redis
from ags.server.shared_counter import SharedCounter
from tenants.secrets.encryption import derive_keys


class Limit:
    """A limit, and the number of requests that it has refused in all processes of the server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refusals = SharedCounter()


class Limiter(Limit):
    """Counts by key in fixed windows: in Redis if it is available, otherwise in this process.

    A window begins when a key is counted first. `unshared`: the number of the first counts of a key for which
    a process does not use Redis.
    """

    def __init__(self, name: str, *, seconds: int, unshared: int = 0) -> None:
        super().__init__(name)
        self.seconds = seconds
        self.unshared = unshared
        self.local = LocalCounters(seconds)

    async def hit(self, amount: int, tenant_id: str, client: str) -> float:
        """Count the key once. Return 0, or the seconds until the window ends if that exceeds `amount`.

        Takes at most 50 ms, and raises nothing.
        """
        # This process always counts, so that it continues with its own count when Redis fails.
        count, remaining = self.local.count((tenant_id, client))
        redis = get_redis()
        if redis is not None and count > self.unshared:
            try:
                # The first such call also counts those before it.
                cost = count if count == self.unshared + 1 else 1
                return await redis.hit(self.name, amount, self.seconds, (tenant_id, _conceal(client)), cost)
            except RedisUnavailable:
                pass
        return remaining if count > amount else 0.0

    async def try_hit(self, amount: int, tenant_id: str, client: str) -> Hit:
        """Count the key once, unless that exceeds `amount`. Takes at most 100 ms, and raises nothing."""
        count, remaining = self.local.count((tenant_id, client))
        if count <= amount:
            remaining = 0.0
        redis, is_shared = get_redis(), False
        if redis is not None:
            with contextlib.suppress(RedisUnavailable):
                remaining = await redis.hit(self.name, amount, self.seconds, (tenant_id, _conceal(client)))
                is_shared = True
        hit = Hit(self, remaining, amount, tenant_id, client, is_shared)
        if remaining:
            await hit.undo()
        return hit


@dataclass(frozen=True, slots=True)
class Hit:
    """The result of `Limiter.try_hit`. `remaining`: as `Limiter.hit` returns it; 0 if the key is counted."""

    limiter: Limiter
    remaining: float
    amount: int
    tenant_id: str
    client: str
    is_shared: bool
    """Whether Redis has counted. Otherwise only this process has."""

    async def undo(self) -> None:
        """Take the count back. Call it at most once. Takes at most 50 ms, and raises nothing."""
        limiter, key = self.limiter, (self.tenant_id, _conceal(self.client))
        limiter.local.undo((self.tenant_id, self.client))
        redis = get_redis()
        if redis is not None and self.is_shared:
            with contextlib.suppress(RedisUnavailable):
                await redis.undo(limiter.name, self.amount, limiter.seconds, key)


def _conceal(text: str) -> str:
    """Return a keyed hash: Redis contains no address, account or user name."""
    return hmac.digest(derive_keys(b"limit")[0], text.encode(), "sha256")[:16].hex()
