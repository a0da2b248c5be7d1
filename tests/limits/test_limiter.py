"""The counts of a limiter in this process."""

from __future__ import annotations

import asyncio

from ags.limits import Hit, Limiter

MAXIMUM = 3


async def try_hits(limiter: Limiter, number: int) -> list[Hit]:
    return [await limiter.try_hit(MAXIMUM, "nagra", "client") for _ in range(number)]


def test_what_exceeds_the_maximum_is_not_counted() -> None:
    """So many passwords that are accepted at the same time do not lock the username."""

    async def count() -> None:
        limiter = Limiter("test", seconds=60)
        hits = await try_hits(limiter, 2 * MAXIMUM)
        assert [bool(hit.remaining) for hit in hits] == [False] * MAXIMUM + [True] * MAXIMUM
        await hits[0].undo()
        assert [bool(hit.remaining) for hit in await try_hits(limiter, 2)] == [False, True]

    asyncio.run(count())
