"""Cached query plans of PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from ags.database import READS, fetch_all, lane
from tests.support.database import database_url
from tests.support.event_loop import open_application, run_in_event_loop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

EXECUTIONS_UNTIL_CACHED = 7
"""Executions of a prepared statement after which PostgreSQL caches its plan."""

ROWS = 10_000


def test_plan_for_an_empty_table_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def count_rows_read() -> int:
        """Return the number of rows that a sequential scan reads to find one row."""
        await fetch_all("SELECT id FROM grown WHERE id = %(id)s", {"id": ROWS}, READS)
        await fetch_all("SELECT pg_stat_force_next_flush()", {}, READS)
        statement = "SELECT seq_tup_read::int FROM pg_stat_user_tables WHERE relname = 'grown'"
        rows = await fetch_all(statement, {}, READS)
        return rows[0][0] if rows else 0

    async def test(pg: psycopg.Connection) -> None:
        async with open_application():
            for _ in range(EXECUTIONS_UNTIL_CACHED):
                assert await count_rows_read() == 0
            pg.execute("INSERT INTO grown SELECT generate_series(1, %s)", [ROWS])
            monkeypatch.setattr(lane, "PLAN_INTERVAL", 0.0)
            assert await count_rows_read() == 0

    with psycopg.connect(database_url(), autocommit=True) as pg:
        pg.execute("CREATE TABLE grown (id bigint PRIMARY KEY)")
        try:
            pg.execute("VACUUM grown")  # updates the statistics
            run_in_event_loop(test(pg))
        finally:
            pg.execute("DROP TABLE grown")
