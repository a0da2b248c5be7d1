"""AGS behind PgBouncer in transaction mode."""

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
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_url, empty_database
from tests.support.live import wait_until_served
from tests.support.markers import skip_unless_installed
from tests.support.operators import create_platform
from tests.support.purge import add_expired_rows, purge_output
from tests.support.server import ServerProcess, run_manage
from tests.support.upstream.pgbouncer import pgbouncer

pytestmark = [
    pytest.mark.postgresql,
    skip_unless_installed(programs={"pgbouncer": "apt-get install pgbouncer"}),
]

POOL = 6
"""Connections of PgBouncer to PostgreSQL for each role."""


@dataclass(frozen=True)
class Pooler:
    """A PgBouncer with the roles of docs/running/database.md: `owner` owns the tables, `serving` serves."""

    owner: str
    serving: str
    port: int

    def url(self, role: str, database: str = "") -> str:
        """Return DATABASE_URL for a role."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database or connection.settings_dict['NAME']}"

    def environment(self, role: str, database: str = "") -> dict[str, str]:
        """Return the environment of a process that uses the pooler."""
        return {"DATABASE_URL": self.url(role, database), "AGS_DATABASE_POOLER": "transaction"}

    def connections(self, role: str, query: str) -> list[Any]:
        """Execute a query on each connection of PgBouncer to PostgreSQL; return one row of each."""
        with ExitStack() as held:
            clients = [
                held.enter_context(closing(psycopg.connect(self.url(role), prepare_threshold=None)))
                for _ in range(POOL)
            ]
            # Each is in a transaction, so they use different connections.
            rows = [client.execute(query).fetchone() for client in clients]
            for client in clients:
                client.rollback()  # otherwise PgBouncer closes the connection
            return rows


@pytest.fixture
def roles(transactional_db: None) -> Iterator[dict[str, str]]:
    """The two roles and their passwords, the owner first."""
    params = conninfo_to_dict(database_url())
    owner, serving = str(params["user"]), f"{params['dbname']}_serving"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {serving}")  # from an interrupted run
        cursor.execute(f"CREATE ROLE {serving} LOGIN PASSWORD 'secret' IN ROLE {owner}")
        cursor.execute(f"ALTER ROLE {serving} SET statement_timeout = '1500ms'")
        cursor.execute(f"ALTER ROLE {serving} SET lock_timeout = '1500ms'")
        cursor.execute(f"ALTER ROLE {serving} SET timezone = 'UTC'")
        cursor.execute(f"ALTER ROLE {owner} IN DATABASE {params['dbname']} SET timezone = 'UTC'")
        cursor.execute(f"ALTER DATABASE {params['dbname']} SET timezone = 'Europe/Zurich'")
    yield {owner: str(params.get("password") or ""), serving: "secret"}
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {params['dbname']} RESET timezone")
        cursor.execute(f"ALTER ROLE {owner} IN DATABASE {params['dbname']} RESET timezone")
        cursor.execute(f"DROP ROLE {serving}")


@pytest.fixture
def poolers(roles: dict[str, str]) -> Iterator[Any]:
    """A function that starts a PgBouncer with additional settings."""
    params = conninfo_to_dict(database_url())
    owner, serving = roles
    with ExitStack() as held:

        def start(**changes: str) -> Pooler:
            options = {"default_pool_size": str(POOL), **changes}
            port = held.enter_context(
                pgbouncer(str(params["host"]), str(params.get("port", 5432)), roles, **options)
            )
            return Pooler(owner, serving, port)

        yield start


@pytest.fixture
def pooler(poolers: Any) -> Pooler:
    """A PgBouncer with default settings."""
    running: Pooler = poolers()
    return running


STATE = """
SELECT current_setting('statement_timeout'), current_setting('TimeZone'),
       (SELECT array_agg(DISTINCT source) FROM pg_settings
         WHERE name IN ('statement_timeout', 'lock_timeout')),
       (SELECT count(*) FROM pg_prepared_statements)
       + (SELECT count(*) FROM pg_cursors WHERE is_holdable)
       + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
       + (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
"""
"""State of a connection: a timeout, the time zone, the source of the timeouts, the number of session objects.

The time zone of the database differs from that of the roles.
"""

STATES = {"owner": ("0", "UTC", ["default"], 0), "serving": ("1500ms", "UTC", ["user"], 0)}
"""The initial state for each role; AGS must not change it."""

PURGES = """
from django.core.management import call_command
from django.db import connection
for _ in range(5):
    call_command("purge", batch=10)
    connection.close()
"""


def test_server_and_purge_leave_no_connection_state(pooler: Pooler, nagra: HeadEnd) -> None:
    with ExitStack() as held:
        idle = [
            held.enter_context(closing(psycopg.connect(pooler.url(pooler.owner), autocommit=True)))
            for _ in range(4)
        ]
        # From now on, each statement uses another connection.
        for role, state in STATES.items():
            assert pooler.connections(getattr(pooler, role), STATE) == [state] * POOL
        before = [client.execute("SHOW statement_timeout").fetchone() for client in idle]
        server = held.enter_context(ServerProcess(**pooler.environment(pooler.serving), AGS_LOG_LEVEL="INFO"))
        app = ClientApp(wait_until_served(server, nagra))
        resources = create_platform(nagra.tenant_id)
        resources.client = server
        for _ in range(2 * POOL):
            assert app.sign_on().status_code == 201
            assert resources.is_active(app.tokens["access_token"])
            assert app.refresh().status_code == 200
            assert app.sign_out().status_code == 200
        add_expired_rows(nagra, 50)
        purges = run_manage("shell", "-v0", "-c", PURGES, **pooler.environment(pooler.owner))
        assert (purges.returncode, purges.stderr) == (0, "")
        assert purges.stdout == purge_output(50) + 4 * purge_output(0)
        assert [client.execute("SHOW statement_timeout").fetchone() for client in idle] == before
        assert server.get("/readyz").status_code == 200
        assert "no statement_timeout" not in server.log
        for role, state in STATES.items():
            assert pooler.connections(getattr(pooler, role), STATE) == [state] * POOL


def check_ids(
    pooler: Pooler, role: str, pooler_setting: str, monkeypatch: pytest.MonkeyPatch, query: str = ""
) -> set[Any]:
    """Return the IDs of the failed system checks with this configuration."""
    with monkeypatch.context() as patch, override_settings(AGS_DATABASE_POOLER=pooler_setting):
        patch.setenv("DATABASE_URL", pooler.url(role) + query)
        for name, value in env.env_database(pooled=pooler_setting == "transaction").items():
            patch.setitem(connection.settings_dict, name, value)
        ids = run_checks(
            tags=[Tags.database, Tags.security], include_deployment_checks=True, databases=["default"]
        )
    return {message.id for message in ids if str(message.id).startswith("operations.")}


@pytest.mark.parametrize("round_robin", ["0", "1"])
def test_system_checks_behind_a_pooler(
    poolers: Any, nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, round_robin: str
) -> None:
    pooler, ignoring = (
        poolers(server_round_robin=round_robin, **more)
        for more in ({}, {"ignore_startup_parameters": "options"})
    )
    for each in (pooler, ignoring):
        for query in ("", "?prepare_threshold=none"):
            assert check_ids(each, each.serving, "none", monkeypatch, query) == {"operations.E002"}
        assert check_ids(each, each.serving, "transaction", monkeypatch) == set()
        assert check_ids(each, each.owner, "transaction", monkeypatch) == {"operations.W004"}
        ids = check_ids(each, each.serving, "transaction", monkeypatch, "?prepare_threshold=1")
        assert ids == {"operations.E003"}
        assert each.connections(each.serving, STATE) == [STATES["serving"]] * POOL
    session = poolers(pool_mode="session", server_round_robin=round_robin)
    assert check_ids(session, session.serving, "transaction", monkeypatch, "?prepare_threshold=5") == set()


def test_server_does_not_start_behind_an_undeclared_pooler(pooler: Pooler) -> None:
    done = run_manage("serve", DATABASE_URL=pooler.url(pooler.serving), AGS_BIND="127.0.0.1:1")
    assert done.returncode == 1
    assert "(operations.E002) A pooler" in done.stderr
    assert "HINT: Set AGS_DATABASE_POOLER=transaction" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_missing_timeouts_of_the_role_are_logged(pooler: Pooler) -> None:
    with ServerProcess(**pooler.environment(pooler.owner)) as server:
        assert "has no statement_timeout and no lock_timeout below 1.8 s" in server.log


@pytest.mark.full
def test_migration_has_no_timeout(pooler: Pooler) -> None:
    with empty_database("pooled") as url:
        with closing(psycopg.connect(url, autocommit=True)) as pg:
            pg.execute("""
                CREATE SEQUENCE statements;
                CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS
                'BEGIN IF nextval(''statements'') = 9 THEN PERFORM pg_sleep(1.8); END IF; END';
                CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE')
                EXECUTE FUNCTION slow()
            """)
        name = str(conninfo_to_dict(url)["dbname"])
        done = run_manage("migrate", "-v0", **pooler.environment(pooler.owner, name))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with closing(psycopg.connect(url, autocommit=True)) as pg:
            assert pg.execute("SELECT last_value > 9 FROM statements").fetchone() == (True,)
