"""Behind a PgBouncer in transaction mode: what works, what stays behind, and what a mistake looks like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.core.checks import Tags, run_checks
from django.db import connection
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from ags import env
from tests import needs
from tests.conftest import ClientApp, HeadEnd, platform
from tests.live.conftest import warm
from tests.live.server import ServerProcess, database_url, empty_database, manage
from tests.live.test_purge import add_expired_rows
from tests.sessions.test_purge import deleted
from tests.upstream.pgbouncer import pgbouncer

pytestmark = [pytest.mark.postgresql, needs(programs={"pgbouncer": "apt-get install pgbouncer"})]

POOL = 6
"""Connections of PgBouncer to PostgreSQL for each role."""


@dataclass(frozen=True)
class Pooler:
    """A PgBouncer. The roles are those of docs/running.md: one owns the tables, the other one serves."""

    owner: str
    serving: str
    port: int

    def url(self, role: str, database: str = "") -> str:
        """The value of DATABASE_URL."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database or connection.settings_dict['NAME']}"

    def environment(self, role: str, database: str = "") -> dict[str, str]:
        """That of a process that connects through it."""
        return {"DATABASE_URL": self.url(role, database), "AGS_DATABASE_POOLER": "transaction"}

    def connections(self, role: str, query: str) -> list[Any]:
        """Return one row for each connection of PgBouncer to PostgreSQL."""
        with ExitStack() as held:
            clients = [
                held.enter_context(closing(psycopg.connect(self.url(role), prepare_threshold=None)))
                for _ in range(POOL)
            ]
            # Each is in a transaction, so no two of them have the same connection.
            rows = [client.execute(query).fetchone() for client in clients]  # type: ignore[call-overload]
            for client in clients:
                client.rollback()  # else PgBouncer closes what it cannot use again
            return rows


@pytest.fixture
def roles(transactional_db: None) -> Iterator[dict[str, str]]:
    """The two roles and their passwords, the owner first."""
    its = conninfo_to_dict(database_url())
    owner, serving = str(its["user"]), f"{its['dbname']}_serving"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {serving}")  # of a run that was ended
        cursor.execute(f"CREATE ROLE {serving} LOGIN PASSWORD 'secret' IN ROLE {owner}")
        cursor.execute(f"ALTER ROLE {serving} SET statement_timeout = '1500ms'")
        cursor.execute(f"ALTER ROLE {serving} SET lock_timeout = '1500ms'")
        cursor.execute(f"ALTER ROLE {serving} SET timezone = 'UTC'")
        cursor.execute(f"ALTER ROLE {owner} IN DATABASE {its['dbname']} SET timezone = 'UTC'")
        cursor.execute(f"ALTER DATABASE {its['dbname']} SET timezone = 'Europe/Zurich'")
    yield {owner: str(its.get("password") or ""), serving: "secret"}
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {its['dbname']} RESET timezone")
        cursor.execute(f"ALTER ROLE {owner} IN DATABASE {its['dbname']} RESET timezone")
        cursor.execute(f"DROP ROLE {serving}")


@pytest.fixture
def poolers(roles: dict[str, str]) -> Iterator[Any]:
    """Start a PgBouncer with these settings."""
    its = conninfo_to_dict(database_url())
    owner, serving = roles
    with ExitStack() as held:

        def started(**changes: str) -> Pooler:
            options = {"default_pool_size": str(POOL), **changes}
            port = held.enter_context(
                pgbouncer(str(its["host"]), str(its.get("port", 5432)), roles, **options)
            )
            return Pooler(owner, serving, port)

        yield started


@pytest.fixture
def pooler(poolers: Any) -> Pooler:
    """A PgBouncer as it comes with Debian."""
    started: Pooler = poolers()
    return started


STATE = """
SELECT current_setting('statement_timeout'), current_setting('TimeZone'),
       (SELECT array_agg(DISTINCT source) FROM pg_settings
         WHERE name IN ('statement_timeout', 'lock_timeout')),
       (SELECT count(*) FROM pg_prepared_statements)
       + (SELECT count(*) FROM pg_cursors WHERE is_holdable)
       + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
       + (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
"""
"""Of a connection: a limit, the time zone, who has set the limits, and how much there is that belongs to it.

The database has another time zone than AGS: that of a connection is from its role.
"""

STATES = {"owner": ("0", "UTC", ["default"], 0), "serving": ("1500ms", "UTC", ["user"], 0)}
"""Of a connection of each role that AGS leaves as it was."""

PURGES = """
from django.core.management import call_command
from django.db import connection
for _ in range(5):
    call_command("purge", batch=10)
    connection.close()
"""


def test_subscribers_are_served_dead_rows_are_purged_and_nothing_stays_behind(
    pooler: Pooler, nagra: HeadEnd
) -> None:
    with ExitStack() as held:
        idle = [
            held.enter_context(closing(psycopg.connect(pooler.url(pooler.owner), autocommit=True)))
            for _ in range(4)
        ]
        # From now on, each statement finds another connection than the one before.
        for role, state in STATES.items():
            assert pooler.connections(getattr(pooler, role), STATE) == [state] * POOL
        before = [client.execute("SHOW statement_timeout").fetchone() for client in idle]
        server = held.enter_context(ServerProcess(**pooler.environment(pooler.serving), AGS_LOG_LEVEL="INFO"))
        app = ClientApp(warm(server, nagra))
        resources = platform(nagra.tenant_id)
        resources.client = server  # type: ignore[assignment]
        for _ in range(2 * POOL):
            assert app.sign_on().status_code == 201
            assert resources.sees(app.tokens["access_token"])
            assert app.refresh().status_code == 200
            assert app.sign_out().status_code == 200
        add_expired_rows(nagra, 50)
        purges = manage("shell", "-v0", "-c", PURGES, **pooler.environment(pooler.owner))
        assert (purges.returncode, purges.stderr) == (0, "")
        assert purges.stdout == deleted(50) + 4 * deleted(0)
        assert [client.execute("SHOW statement_timeout").fetchone() for client in idle] == before
        assert server.get("/readyz").status_code == 200
        assert "no statement_timeout" not in server.log
        for role, state in STATES.items():
            assert pooler.connections(getattr(pooler, role), STATE) == [state] * POOL


def ids(
    pooler: Pooler, role: str, declared: str, monkeypatch: pytest.MonkeyPatch, query: str = ""
) -> set[Any]:
    """The ids of what the checks of a process with these variables find."""
    with monkeypatch.context() as patch, override_settings(AGS_DATABASE_POOLER=declared):
        patch.setenv("DATABASE_URL", pooler.url(role) + query)
        for name, value in env.database(pooled=declared == "transaction").items():
            patch.setitem(connection.settings_dict, name, value)
        found = run_checks(
            tags=[Tags.database, Tags.security], include_deployment_checks=True, databases=["default"]
        )
    return {message.id for message in found if str(message.id).startswith("operations.")}


@pytest.mark.parametrize("in_turn", ["0", "1"])
def test_checks_find_a_pooler_that_is_not_declared_and_what_it_does_not_know(
    poolers: Any, nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, in_turn: str
) -> None:
    pooler, deaf = (
        poolers(server_round_robin=in_turn, **more) for more in ({}, {"ignore_startup_parameters": "options"})
    )
    for each in (pooler, deaf):
        for query in ("", "?prepare_threshold=none"):
            assert ids(each, each.serving, "none", monkeypatch, query) == {"operations.E002"}
        assert ids(each, each.serving, "transaction", monkeypatch) == set()
        assert ids(each, each.owner, "transaction", monkeypatch) == {"operations.W004"}
        found = ids(each, each.serving, "transaction", monkeypatch, "?prepare_threshold=1")
        assert found == {"operations.E003"}
        assert each.connections(each.serving, STATE) == [STATES["serving"]] * POOL
    session = poolers(pool_mode="session", server_round_robin=in_turn)
    assert ids(session, session.serving, "transaction", monkeypatch, "?prepare_threshold=5") == set()


def test_a_server_behind_a_pooler_that_is_not_declared_does_not_start(pooler: Pooler) -> None:
    done = manage("serve", DATABASE_URL=pooler.url(pooler.serving), AGS_BIND="127.0.0.1:1")
    assert done.returncode == 1
    assert "(operations.E002) A pooler" in done.stderr
    assert "HINT: Set AGS_DATABASE_POOLER=transaction" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_a_server_whose_role_has_no_limits_says_so_when_it_starts(pooler: Pooler) -> None:
    with ServerProcess(**pooler.environment(pooler.owner)) as server:
        assert "has no statement_timeout and no lock_timeout below 1.8 s" in server.log


@pytest.mark.full
def test_a_migration_may_take_longer_than_a_request(pooler: Pooler) -> None:
    with empty_database("pooled") as url:
        with closing(psycopg.connect(url, autocommit=True)) as its:
            its.execute("""
                CREATE SEQUENCE statements;
                CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS
                'BEGIN IF nextval(''statements'') = 9 THEN PERFORM pg_sleep(1.8); END IF; END';
                CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE')
                EXECUTE FUNCTION slow()
            """)
        name = str(conninfo_to_dict(url)["dbname"])
        done = manage("migrate", "-v0", **pooler.environment(pooler.owner, name))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with closing(psycopg.connect(url, autocommit=True)) as its:
            assert its.execute("SELECT last_value > 9 FROM statements").fetchone() == (True,)
