"""A limit: how often something may happen for a key in a window."""

from ags.limits.memory import LocalCounters
from ags.limits.redis import RedisUnavailable, get_redis
from ags.server.shared_counter import SharedCounter


class Limiter:
    """Counts by key in fixed windows: in Redis if it is available, otherwise in this process.

    A window begins when a key is counted first. `refusals`: the requests that this limit has refused, in all
    processes of the server.
    """

    def __init__(self, name: str, *, seconds: int) -> None:
        self.name = name
        self.seconds = seconds
        self.refusals = SharedCounter()
        self.local = LocalCounters(seconds)

    async def hit(self, amount: int, *key: str) -> float:
        """Count the key once. Return 0, or the seconds until the window ends if that exceeds `amount`.

        Takes at most 50 ms, and raises nothing.
        """
        # This process always counts, so that it continues with its own count when Redis fails.
        count, remaining = self.local.count(key)
        redis = get_redis()
        if redis is not None:
            try:
                return await redis.hit(self.name, amount, self.seconds, key)
            except RedisUnavailable:
                pass
        return remaining if count > amount else 0.0
