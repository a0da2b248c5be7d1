"""Purges in batches: their size, their order, interruptions, and one purge at a time."""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, cast

import pytest
from axes.models import AccessAttempt
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from ags.operations import lease
from ags.operations.lease import LeaseNotAvailable
from ags.operations.purge import BATCH_SIZE
from ags.operations.purge import purge as batches
from ags.sessions.models import (
    Account,
    AccountChoice,
    Device,
    Lease,
    RevokedAccessToken,
    SecurityEvent,
    SessionToken,
)
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.purge import (
    RETENTION,
    add_events,
    add_session_tokens,
    purge_output,
    run_purge,
    time_before,
)


def ids_of(sql: str) -> str:
    return sql.partition(" IN (")[2].partition(")")[0]


def tokens_of(deletions: Iterator[tuple[str, int]]) -> list[int]:
    return [count for kind, count in deletions if kind == "session tokens"]


def add_devices(head_end: HeadEnd, number: int, seconds: int, **fields: Any) -> None:
    """Store deleted devices whose sign-on expired that many seconds ago."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    account, _ = Account.unscoped.get_or_create(tenant_id=head_end.tenant_id, account_id="x")
    time = datetime.now(UTC) - timedelta(seconds=seconds)
    first = Device.unscoped.count()
    Device.unscoped.bulk_create(
        [
            Device(
                **{"status": "deleted", **fields},
                tenant_id=head_end.tenant_id,
                account=account,
                client_id=f"{index:032}",
                information={},
                service=service,
                sign_on=f"{index:032}",
                correlation_id="x",
                proven_at=time,
                signed_on_at=time,
                fixed_expires_at=time + timedelta(microseconds=index),
                refresh_expires_at=time,
            )
            for index in range(first, first + number)
        ]
    )


def add_revocations(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store revoked access tokens that expired that many seconds ago."""
    time = datetime.now(UTC) - timedelta(seconds=seconds)
    first = RevokedAccessToken.unscoped.count()
    RevokedAccessToken.unscoped.bulk_create(
        [
            RevokedAccessToken(
                tenant_id=head_end.tenant_id,
                jti=f"{index:032}",
                expires_at=time + timedelta(microseconds=index),
            )
            for index in range(first, first + number)
        ]
    )


def add_security_events(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store security events that occurred 90 days and that many seconds ago."""
    time = datetime.now(UTC) - timedelta(days=90, seconds=seconds)
    first = SecurityEvent.unscoped.count()
    SecurityEvent.unscoped.bulk_create(
        [
            SecurityEvent(
                tenant_id=head_end.tenant_id,
                kind=SecurityEvent.Kind.REFRESH_TOKEN_REUSED,
                subject=str(index),
                account_id="x",
                correlation_id="x",
                latest_at=time + timedelta(microseconds=index),
            )
            for index in range(first, first + number)
        ]
    )


def add_events_of_tenant(head_end: HeadEnd, number: int, seconds: int) -> None:
    add_events(head_end.tenant_id, number, seconds)


def add_events_of_no_tenant(head_end: HeadEnd, number: int, seconds: int) -> None:
    add_events(None, number, seconds)


def add_choices(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store account choices that expired that many seconds ago. Every second one was redeemed."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    time = datetime.now(UTC) - timedelta(seconds=seconds)
    first = AccountChoice.unscoped.count()
    AccountChoice.unscoped.bulk_create(
        [
            AccountChoice(
                tenant_id=head_end.tenant_id,
                service=service,
                token_hash=index.to_bytes(32, "big"),
                accounts=["x", "y"],
                information={},
                correlation_id="x",
                expires_at=time + timedelta(microseconds=index),
                used_at=time if index % 2 else None,
            )
            for index in range(first, first + number)
        ]
    )


def test_each_batch_is_small_and_committed_separately(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 25, seconds=60)
    add_session_tokens(nagra, 5, seconds=-60)
    with CaptureQueriesContext(connection) as captured:
        assert tokens_of(batches(10)) == [10, 10, 5]
    deletes = [query["sql"] for query in captured if query["sql"].startswith("DELETE")]
    assert [ids_of(sql).count(",") + 1 for sql in deletes] == [10, 10, 5]
    select_pattern = re.compile('SELECT "ags_sessions_session.*"dead_after" <= ')
    selects = [query["sql"] for query in captured if select_pattern.match(query["sql"])]
    assert len(selects) == 3
    assert all(sql.endswith("ORDER BY 2 ASC LIMIT 10") for sql in selects), "by created_at"
    continues = ['"created_at" >=' in sql for sql in selects]
    is_postgresql = connection.vendor == "postgresql"
    assert continues == [False, is_postgresql, is_postgresql]
    assert SessionToken.unscoped.count() == 5


def test_the_kinds_take_turns(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 100, seconds=60)
    add_choices(nagra, 5, seconds=60)
    done = batches(2)
    kinds = [kind for kind, _ in islice(done, 17)]
    assert len(kinds[:13]) - len(set(kinds[:13])) == 1, "each once; events of the tenant, and of no tenant"
    assert kinds[13:15] == kinds[15:] == ["session tokens", "choices of an account"]
    assert AccountChoice.unscoped.count() == 0
    assert SessionToken.unscoped.count() == 94


@pytest.mark.parametrize(
    ("add", "kind"),
    [
        (add_choices, "choices of an account"),
        (add_revocations, "revoked access tokens"),
        (add_devices, "deleted devices"),
        (add_security_events, "security events"),
    ],
)
def test_rows_of_client_apps_are_deleted_in_batches_oldest_first(
    nagra: HeadEnd, sunrise: HeadEnd, add: Any, kind: str
) -> None:
    add(nagra, 15, seconds=100)
    add(sunrise, 10, seconds=200)
    add(sunrise, 5, seconds=-100)
    with CaptureQueriesContext(connection) as captured:
        assert [count for name, count in batches(10) if name == kind] == [10, 10, 5]
    deletes = [query["sql"] for query in captured if query["sql"].startswith("DELETE")]
    assert [ids_of(sql).count(",") + 1 for sql in deletes] == [10, 10, 5]
    first, second = ({int(pk) for pk in ids_of(sql).split(",")} for sql in deletes[:2])
    assert min(first) > max(second), "the rows of sunrise expired first"


@pytest.mark.django_db
def test_failed_logins_are_deleted_in_batches_oldest_first() -> None:
    AccessAttempt.objects.bulk_create(
        [AccessAttempt(username=f"stranger-{number}", failures_since_start=1) for number in range(25)]
    )
    AccessAttempt.objects.update(attempt_time=datetime.now(UTC) - timedelta(hours=1))
    AccessAttempt.objects.create(username="staff", failures_since_start=1)
    done = batches(10)
    assert list(islice(done, 5)) == [
        ("events", 0),
        ("choices of an account", 0),
        ("revoked access tokens", 0),
        ("deleted devices", 0),
        ("security events", 0),
    ]
    assert next(done) == ("failed logins", 10)
    assert AccessAttempt.objects.order_by("pk")[0].username == "stranger-10"
    assert list(done) == [
        ("states of documents", 0),
        ("uses of keys", 0),
        ("explanation links", 0),
        ("sessions of staff", 0),
        ("failed logins", 10),
        ("failed logins", 5),
    ]
    assert AccessAttempt.objects.get().username == "staff"


def test_the_oldest_session_tokens_are_deleted_first(nagra: HeadEnd) -> None:
    for seconds in (60, 600, 6000):
        add_session_tokens(nagra, 2, seconds=seconds)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    oldest = SessionToken.unscoped.order_by("created_at").values_list("created_at", flat=True)[0]
    assert timedelta(seconds=590) < datetime.now(UTC) - RETENTION - oldest < timedelta(seconds=5900)
    cast(Generator[Any], first).close()


@pytest.mark.django_db(transaction=True)
def test_an_interrupted_purge_keeps_its_progress(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 30, seconds=60)
    deletes = 0

    def breaks(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal deletes
        if sql.startswith("DELETE"):
            deletes += 1
            if deletes == 3:
                raise OperationalError("away")
        return execute(sql, *rest)

    with connection.execute_wrapper(breaks), pytest.raises(OperationalError):
        run_purge("--batch", "10")
    assert SessionToken.unscoped.count() == 10
    assert run_purge() == purge_output(tokens=10), "the lease was released"


@pytest.mark.django_db
@pytest.mark.parametrize("batch", ["0", "-1", "10001", "many", "1.5", "²"])
def test_the_batch_size_has_limits(batch: str) -> None:
    with pytest.raises(CommandError, match="must be an integer from 1 to 10000"):
        run_purge(f"--batch={batch}")


def test_every_database_accepts_the_largest_batch(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 10_000, seconds=60)
    assert run_purge("--batch", "10000") == purge_output(tokens=10000)


def test_a_second_purge_fails_and_names_the_first(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 5, seconds=60)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    holder = f"process {os.getpid()} on {re.escape(socket.gethostname())}"
    with pytest.raises(CommandError, match=rf"^Another purge is running: {holder}, since \d{{4}}-.+ UTC\.$"):
        run_purge()
    assert SessionToken.unscoped.count() == 3
    cast(Generator[Any], first).close()
    assert run_purge() == purge_output(tokens=3)


def test_a_crashed_purge_blocks_others_until_its_lease_expires(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL", timedelta(0))
    add_session_tokens(nagra, 7, seconds=60)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    Lease.objects.update(expires_at=time_before(seconds=1))
    next(first)
    with pytest.raises(CommandError):  # the first purge has renewed its lease
        run_purge()
    Lease.objects.update(expires_at=time_before(seconds=1))
    assert run_purge() == purge_output(tokens=5)
    with pytest.raises(LeaseNotAvailable):  # another purge has acquired the lease
        next(first)


def test_a_purge_that_loses_its_lease_prints_its_counts(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL", timedelta(0))
    add_session_tokens(nagra, 7, seconds=60)
    out = io.StringIO()

    def take_over(execute: Any, sql: str, *rest: Any) -> Any:
        done = execute(sql, *rest)
        if sql.startswith('DELETE FROM "ags_sessions_sessiontoken"'):
            Lease.objects.update(expires_at=time_before(seconds=1))
            lease.LeaseHolder("purge").__enter__()
        return done

    message = r"^Stopped: this purge was blocked .* 60 seconds, and another one has started: process \d+ on "
    with connection.execute_wrapper(take_over), pytest.raises(CommandError, match=message):
        call_command("purge", "--batch=2", stdout=out)
    assert out.getvalue() == "2 session tokens deleted\n"
    assert SessionToken.unscoped.count() == 5


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("add", "kind", "table", "index"),
    [
        (add_session_tokens, "session tokens", "sessiontoken", "tokens_of_a_time"),
        (
            add_choices,
            "choices of an account",
            "accountchoice",
            "ags_sessions_accountchoice_expires_at",
        ),
        (
            add_revocations,
            "revoked access tokens",
            "revokedaccesstoken",
            "ags_sessions_revokedaccesstoken_expires_at",
        ),
        (add_devices, "deleted devices", "device", "deleted_devices"),
        (add_security_events, "security events", "securityevent", "ags_sessions_securityevent_latest_at"),
        (add_events_of_tenant, "events", "event", "audit_events_of_a_tenant"),
        (add_events_of_no_tenant, "events", "event", "audit_events_of_no_tenant"),
    ],
)
def test_expired_rows_are_selected_by_an_index_and_deleted_by_primary_key(
    nagra: HeadEnd, add: Any, kind: str, table: str, index: str
) -> None:
    add(nagra, 3000, seconds=100)
    add(nagra, 3000, seconds=-3600)
    if add is add_devices:
        add_devices(nagra, 3000, seconds=100, status="enabled")
    table = f"ags_sessions_{table}"
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {table}")
        with CaptureQueriesContext(connection) as captured:
            deletions = batches(100)
            assert next(count for name, count in deletions if name == kind and count) == 100
        plans = {}
        for query in captured:
            verb = query["sql"].split()[0]
            if f'FROM "{table}"' in query["sql"]:
                cursor.execute("EXPLAIN " + query["sql"])
                plans[verb] = "\n".join(line for (line,) in cursor.fetchall())
    cast(Generator[Any], deletions).close()
    assert set(plans) == {"SELECT", "DELETE"}
    assert f"Index Scan using {index}" in plans["SELECT"]
    assert "Sort" not in plans["SELECT"]
    assert f"{table}_pkey" in plans["DELETE"]
    assert not any("Seq Scan" in plan for plan in plans.values())


def test_the_default_batch_is_small() -> None:
    assert BATCH_SIZE <= 100
