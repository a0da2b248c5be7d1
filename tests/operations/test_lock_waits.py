"""Limits on lock waits of migrations, and invalid indexes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command, get_commands
from django.db import IntegrityError, OperationalError, connection, transaction

from ags.operations.lock_waits import LockWaits, describe_holder, drop_invalid_indexes, is_lock_timeout
from tests.support.database import database_url
from tests.support.waiting import wait_until

TABLE = "ags_sessions_sessiontoken"
TIMEOUTS = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"


def run(statement: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def reported() -> list[str]:
    """The reports of waits without a limit. CONCURRENTLY can cause any on a busy machine."""
    return []


@pytest.fixture
def waits(transactional_db: None, reported: list[str]) -> Iterator[LockWaits]:
    waits = LockWaits("default", reported.append)
    with waits.limited():
        yield waits


@pytest.fixture
def owner(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role without privileges that owns the table `of_this_test`, and that new connections have."""
    name = f"{connection.settings_dict['NAME']}_owner"
    run(f"DROP ROLE IF EXISTS {name}")  # left by an interrupted run
    run(f"CREATE ROLE {name}")
    run("CREATE TABLE of_this_test ()")
    run(f"ALTER TABLE of_this_test OWNER TO {name}")
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict["OPTIONS"], "assume_role", name)
        connection.close()
        yield name
    connection.close()
    run("DROP TABLE of_this_test")
    run(f"DROP ROLE {name}")


def test_ags_replaces_the_migrate_command() -> None:
    assert get_commands()["migrate"] == "ags.operations"


@pytest.mark.parametrize("number", ["-1", "10001", "1.5", "many"])
def test_the_number_of_retries_has_limits(number: str) -> None:
    with pytest.raises(CommandError, match="--lock-retries: must be an integer from 0 to 10000"):
        call_command("migrate", f"--lock-retries={number}")


@pytest.mark.postgresql
def test_a_statement_outside_a_transaction_has_a_limit(waits: LockWaits, reported: list[str]) -> None:
    with psycopg.connect(database_url(), application_name="a holder") as holder:
        holder.execute(f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE")
        holder.execute("SELECT 'a secret'")
        name = f"a lock on {TABLE}, held by a holder (pid {holder.info.backend_pid}, user "

        def is_named() -> bool:
            with pytest.raises(OperationalError) as error:
                run(f"ALTER TABLE {TABLE} ADD COLUMN added integer")
            assert is_lock_timeout(error.value)
            return waits.holders.startswith(name)

        wait_until(is_named, "the holder is not reported")  # a slow machine may observe too late
    assert "secret" not in waits.holders
    assert not reported


@pytest.mark.postgresql
@pytest.mark.parametrize("application", ["pg_dump", ""])
def test_details_that_postgresql_hides_are_omitted(application: str, owner: str) -> None:
    def held(by: str) -> bool:
        waits = LockWaits("default", print)
        with waits.limited(), pytest.raises(OperationalError):
            run("ALTER TABLE of_this_test ADD COLUMN added integer")
        assert "None" not in waits.holders
        return re.fullmatch(f"a lock on of_this_test, held by {by}", waits.holders) is not None

    with psycopg.connect(database_url(), application_name=application) as holder:
        holder.execute("LOCK TABLE of_this_test IN ACCESS SHARE MODE")
        known = f"pid {holder.info.backend_pid}, user {holder.info.user}"
        name = application or "an unnamed application"
        wait_until(lambda: held(rf"{name} \({known}\)"), "the holder is not reported")
        with psycopg.connect(database_url(), autocommit=True) as superuser:
            superuser.execute(f"GRANT pg_read_all_stats TO {owner}")
        name = application or "client backend"
        wait_until(
            lambda: held(rf"{name} \({known}, in a transaction since .+ UTC\)"),
            "the transaction is not reported",
        )


@pytest.mark.parametrize(
    ("pid", "known", "name"),
    [
        (0, (None, None, None), "a prepared transaction"),
        (1, (None, None, None), "a process of PostgreSQL (pid 1)"),  # or a session that has ended
        (1, ("autovacuum worker", None, "noon"), "autovacuum worker (pid 1, in a transaction since noon)"),
    ],
)
def test_a_process_of_postgresql_has_no_user(pid: int, known: Any, name: str) -> None:
    assert describe_holder(pid, *known) == name


@pytest.mark.postgresql
def test_limits_end_with_the_transaction(waits: LockWaits, reported: list[str]) -> None:
    connection.ensure_connection()
    session = connection.connection  # not limited by LockWaits
    session.execute("SET statement_timeout = '1500ms'; SET lock_timeout = '0'")
    try:
        for _ in range(2):
            with transaction.atomic():
                with transaction.atomic():
                    assert run(TIMEOUTS) == [("0", "100ms")]
                assert run(TIMEOUTS) == [("0", "100ms")]
            assert session.execute(TIMEOUTS).fetchone() == ("1500ms", "0")
        assert not reported
    finally:
        connection.close()


@pytest.mark.postgresql
def test_an_index_that_is_being_built_is_not_dropped(waits: LockWaits) -> None:
    with pytest.raises(IntegrityError):  # because there are several rows
        run("CREATE UNIQUE INDEX CONCURRENTLY of_this_test ON django_migrations ((1))")
    try:
        with psycopg.connect(database_url()) as builder:
            builder.execute("LOCK TABLE django_migrations IN SHARE UPDATE EXCLUSIVE MODE")
            with pytest.raises(OperationalError) as error:
                drop_invalid_indexes(connection, ["django_migrations"])
        assert is_lock_timeout(error.value)
        assert drop_invalid_indexes(connection, [TABLE]) == []
        assert drop_invalid_indexes(connection, ["django_migrations"]) == ["of_this_test"]
        assert drop_invalid_indexes(connection, ["django_migrations"]) == []
    finally:
        run("DROP INDEX IF EXISTS of_this_test")
