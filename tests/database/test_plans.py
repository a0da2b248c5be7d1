"""Plans that PostgreSQL makes while a table is empty."""

from __future__ import annotations

import psycopg
import pytest

from ags.database import READS, fetch_all, fetch_one, postgresql
from tests.event_loop import run, serving
from tests.live.server import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

UNTIL_KEPT = 7
"""Executions of a prepared statement after which PostgreSQL keeps its plan."""

ROWS = 10_000


def test_the_plan_of_an_empty_table_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find() -> int:
        """Return how many rows are read to find one."""
        await fetch_all("SELECT id FROM grown WHERE id = %(id)s", {"id": ROWS}, READS)
        await fetch_all("SELECT pg_stat_force_next_flush()", {}, READS)
        statement = "SELECT seq_tup_read::int FROM pg_stat_user_tables WHERE relname = 'grown'"
        return (await fetch_one(statement, {}, READS) or [0])[0]

    async def test(pg: psycopg.Connection) -> None:
        async with serving():
            for _ in range(UNTIL_KEPT):
                assert await find() == 0
            pg.execute("INSERT INTO grown SELECT generate_series(1, %s)", [ROWS])
            monkeypatch.setattr(postgresql, "PLAN_INTERVAL", 0.0)
            assert await find() == 0

    with psycopg.connect(database_url(), autocommit=True) as pg:
        pg.execute("CREATE TABLE grown (id bigint PRIMARY KEY)")
        try:
            pg.execute("VACUUM grown")  # now it is known to be empty
            run(test(pg))
        finally:
            pg.execute("DROP TABLE grown")
