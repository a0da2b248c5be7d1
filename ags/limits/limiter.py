"""A limit: how often something may happen for a key in a window."""

import contextlib
import hmac

from ags.limits.memory import LocalCounters
from ags.limits.redis import RedisUnavailable, get_redis
from ags.server.shared_counter import SharedCounter
from tenants.secrets.encryption import derive_keys


class Limiter:
    """Counts by key in fixed windows: in Redis if it is available, otherwise in this process.

    A window begins when a key is counted first. `unshared`: the number of the first counts of a key for which
    a process does not use Redis. `refusals`: the requests that this limit has refused, in all processes of
    the server.
    """

    def __init__(self, name: str, *, seconds: int, unshared: int = 0) -> None:
        self.name = name
        self.seconds = seconds
        self.unshared = unshared
        self.refusals = SharedCounter()
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
                return await redis.hit(self.name, amount, self.seconds, (tenant_id, _conceal(client)))
            except RedisUnavailable:
                pass
        return remaining if count > amount else 0.0

    async def undo(self, amount: int, tenant_id: str, client: str) -> None:
        """Take back a call of `hit` with the same arguments. Takes at most 50 ms, and raises nothing."""
        self.local.undo((tenant_id, client))
        redis = get_redis()
        if redis is not None:
            with contextlib.suppress(RedisUnavailable):
                await redis.hit(self.name, amount, self.seconds, (tenant_id, _conceal(client)), cost=-1)


def _conceal(text: str) -> str:
    """Return a keyed hash: Redis contains no address, account or user name."""
    return hmac.digest(derive_keys(b"limit")[0], text.encode(), "sha256")[:16].hex()
