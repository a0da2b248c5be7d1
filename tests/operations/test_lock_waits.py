"""Limited waits for locks: which statements have a limit, and what stays behind."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.core.management import CommandError, call_command, get_commands
from django.db import IntegrityError, OperationalError, connection, transaction

from ags.operations.lock_waits import LockWaits, drop_invalid_indexes, is_lock_timeout
from tests.live.server import database_url
from tests.waiting import wait_until

TABLE = "ags_sessions_sessiontoken"
TIMEOUTS = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"


def run(statement: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def waits(transactional_db: None) -> Iterator[LockWaits]:
    """The limits, around the whole test."""
    reported: list[str] = []
    waits = LockWaits("default", reported.append)
    with waits.limited():
        yield waits
    assert not reported


def test_migrate_is_ours() -> None:
    assert get_commands()["migrate"] == "ags.operations"


@pytest.mark.parametrize("number", ["-1", "10001", "1.5", "many"])
def test_the_number_of_retries_has_limits(number: str) -> None:
    with pytest.raises(CommandError, match="--lock-retries: it must be a whole number from 0 to 10000"):
        call_command("migrate", f"--lock-retries={number}")


@pytest.mark.postgresql
def test_a_statement_outside_a_transaction_has_a_limit_too(waits: LockWaits) -> None:
    with psycopg.connect(database_url(), application_name="a holder") as holder:
        holder.execute(f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE")
        holder.execute("SELECT 'a secret'")
        name = f"a lock on {TABLE}, held by a holder (pid {holder.info.backend_pid}, user "

        def is_named() -> bool:
            with pytest.raises(OperationalError) as error:
                run(f"ALTER TABLE {TABLE} ADD COLUMN added integer")
            assert is_lock_timeout(error.value)
            return waits.holders.startswith(name)

        wait_until(is_named, "the holder is not named")  # a slow machine may look too late
    assert "secret" not in waits.holders


@pytest.mark.postgresql
def test_the_limits_end_with_the_transaction(waits: LockWaits) -> None:
    connection.ensure_connection()
    session = connection.connection  # past the wrapper
    session.execute("SET statement_timeout = '1500ms'; SET lock_timeout = '0'")
    try:
        for _ in range(2):
            with transaction.atomic():
                with transaction.atomic():
                    assert run(TIMEOUTS) == [("0", "100ms")]
                assert run(TIMEOUTS) == [("0", "100ms")]
            assert session.execute(TIMEOUTS).fetchone() == ("1500ms", "0")
    finally:
        connection.close()


@pytest.mark.postgresql
def test_an_index_that_is_being_built_is_not_dropped(waits: LockWaits) -> None:
    with pytest.raises(IntegrityError):  # there are several rows
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
