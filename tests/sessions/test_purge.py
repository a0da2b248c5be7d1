"""`manage.py purge` deletes expired rows in small batches."""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from asgiref.sync import async_to_sync
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now
from django.test import Client
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
from ags.sessions.services.issue import MAX_DATETIME, issue
from providers.contract import Identity
from tenants.models import DocumentHealth, ResourceServer, Service
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.purge import purge_output


def purge(*options: str) -> str:
    out = io.StringIO()
    call_command("purge", *options, stdout=out)
    return out.getvalue()


def expire(**rows: Any) -> None:
    """Let the session tokens expire now. Rows with a jti are kept for their assertions."""
    SessionToken.unscoped.filter(**rows).update(expires_at=Now())
    SessionToken.unscoped.filter(**rows, jti=None).update(dead_after=Now())


def ids_of(sql: str) -> str:
    return sql.partition(" IN (")[2].partition(")")[0]


def ago(**time: int) -> CombinedExpression:
    """Return a time by the database's clock."""
    return Now() - timedelta(**time)


def tokens_of(deletions: Iterator[tuple[str, int]]) -> list[int]:
    return [count for kind, count in deletions if kind == "session tokens"]


def add_rows(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store session tokens that could be deleted for that many seconds, or later if it is negative."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    time = datetime.now(UTC) - timedelta(seconds=seconds)
    first = SessionToken.unscoped.count()
    SessionToken.unscoped.bulk_create(
        [
            SessionToken(
                tenant_id=head_end.tenant_id,
                service=service,
                token_hash=index.to_bytes(32, "big"),
                account_id="x",
                correlation_id="x",
                expires_at=time,
                dead_after=time + timedelta(microseconds=index),
            )
            for index in range(first, first + number)
        ]
    )


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


def add_events(head_end: HeadEnd, number: int, seconds: int) -> None:
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


def test_only_expired_session_tokens_are_deleted(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    nagra.present(nagra.token())
    sunrise.present(sunrise.token())
    assert purge() == purge_output()
    expire(tenant="nagra")
    nagra.present(nagra.token())
    assert purge() == purge_output(tokens=1)
    assert SessionToken.objects.for_tenant("nagra").count() == 1
    assert SessionToken.objects.for_tenant("sunrise").count() == 1
    assert purge() == purge_output()


def test_a_row_with_a_jti_is_kept_after_its_token_expires(nagra: HeadEnd) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    assert nagra.present(nagra.token()).status_code == 200
    expire()
    assert purge() == purge_output(tokens=1), "the token without a jti"
    answer = nagra.present(token)
    assert (answer.status_code, answer.json()["reason"]) == (401, "replayed")
    SessionToken.unscoped.update(dead_after=Now())
    assert purge() == purge_output(tokens=1)


def test_a_jti_is_kept_for_the_maximum_clock_skew(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings |= {"clock_skew": 300, "session_token_ttl": 1}
    service.save()
    token = nagra.token(jti="once", exp=int(datetime.now(UTC).timestamp()) - 290)
    assert nagra.present(token).status_code == 200
    expire()
    assert purge() == purge_output()
    assert nagra.present(token).json()["reason"] == "replayed"
    (row,) = SessionToken.objects.for_tenant("nagra")
    with time_machine.travel(row.dead_after, tick=True):
        assert nagra.present(token).json()["reason"] == "token_expired", (
            "the assertion has expired when its row is deleted"
        )


def test_a_guard_without_end_is_deleted_if_its_assertion_is_rejected_anyway(nagra: HeadEnd) -> None:
    """An earlier release stored such rows for an `exp` in milliseconds, in the year 58,000."""
    milliseconds, year_2100 = int(datetime.now(UTC).timestamp()) * 1000, 4_102_444_800
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    for exp in (milliseconds, year_2100):
        assert nagra.present(nagra.token(jti=str(exp), exp=exp)).json()["reason"] == "lifetime_too_long"
        async_to_sync(issue)(
            tenant, tenant.services[SERVICE], Identity("a", jti=str(exp), replayable_until=exp), "x"
        )
    rows = SessionToken.objects.for_tenant("nagra")
    assert purge() == purge_output(), "the session token can still be redeemed"
    expire()
    Service.unscoped.update(strategy="dummy")
    assert purge() == purge_output(), "this strategy may accept the assertion"
    Service.unscoped.update(strategy="operator_token")
    assert purge() == purge_output(guards=1)
    assert rows.get().jti == str(year_2100), "the assertion is accepted from 2090 on"
    with time_machine.travel(datetime(9989, 12, 1, tzinfo=UTC), tick=True):
        answer = nagra.present(nagra.token(jti="new", exp=int(MAX_DATETIME.timestamp())))
        assert answer.json()["reason"] == "lifetime_too_long"


@pytest.mark.parametrize("hours", [-5, 5])
def test_expiration_depends_on_the_databases_clock(nagra: HeadEnd, hours: int) -> None:
    add_rows(nagra, 1, seconds=1800)
    add_rows(nagra, 1, seconds=-1800)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        assert purge() == purge_output(tokens=1)


def test_each_batch_is_small_and_committed_separately(nagra: HeadEnd) -> None:
    add_rows(nagra, 25, seconds=60)
    add_rows(nagra, 5, seconds=-60)
    with CaptureQueriesContext(connection) as captured:
        assert tokens_of(batches(10)) == [10, 10, 5]
    deletes = [query["sql"] for query in captured if query["sql"].startswith("DELETE")]
    assert [ids_of(sql).count(",") + 1 for sql in deletes] == [10, 10, 5]
    select_pattern = re.compile('SELECT "ags_sessions_session.*"dead_after" <= ')
    selects = [query["sql"] for query in captured if select_pattern.match(query["sql"])]
    assert len(selects) == 3
    assert all(sql.endswith("ORDER BY 2 ASC LIMIT 10") for sql in selects), "by dead_after"
    continues = ['"dead_after" >=' in sql for sql in selects]
    is_postgresql = connection.vendor == "postgresql"
    assert continues == [False, is_postgresql, is_postgresql]
    assert SessionToken.unscoped.count() == 5


def test_the_kinds_take_turns(nagra: HeadEnd) -> None:
    add_rows(nagra, 100, seconds=60)
    add_choices(nagra, 5, seconds=60)
    done = batches(2)
    kinds = [kind for kind, _ in islice(done, 13)]
    assert kinds[:2] == kinds[9:11] == kinds[11:13] == ["session tokens", "choices of an account"]
    assert AccountChoice.unscoped.count() == 0
    assert SessionToken.unscoped.count() == 94


def test_a_revoked_access_token_is_kept_until_it_has_expired_for_every_process(app: ClientApp) -> None:
    server = ResourceServer(tenant_id=app.head_end.tenant_id, name="player")
    secret = server.set_credentials()
    server.save()
    app.sign_on()
    form = urlencode(
        {"token": app.tokens["access_token"], "client_id": server.client_id, "client_secret": secret}
    )

    def ask(path: str) -> Any:
        return app.call(path, form, content_type="application/x-www-form-urlencoded").json()

    assert ask("/oauth/introspect")["active"]
    assert ask("/oauth/revoke") == {}
    assert purge() == purge_output()
    assert ask("/oauth/introspect") == {"active": False}
    RevokedAccessToken.unscoped.update(expires_at=ago(seconds=50))
    assert purge() == purge_output(), "the clock of a process may be behind"
    RevokedAccessToken.unscoped.update(expires_at=ago(seconds=70))
    assert purge() == purge_output(access=1)


def test_a_deleted_device_is_deleted_when_its_sign_on_expires(app: ClientApp) -> None:
    app.sign_on()
    client_id = app.tokens["client_id"]
    Device.unscoped.update(status="deleted")
    assert purge() == purge_output(), "its client may still present a refresh token"
    refreshed = app.refresh()
    assert (refreshed.status_code, refreshed.json()["code"]) == (403, 20003)
    before = app.sign_on(clientId=client_id).json()
    Device.unscoped.update(fixed_expires_at=ago(minutes=2))
    assert purge() == purge_output(devices=1)
    after = app.sign_on(clientId=client_id).json()
    assert before["code"] == 20003
    assert after | {"correlationId": ""} == before | {"correlationId": ""}, (
        "the response is the same as for a deleted device"
    )


@pytest.mark.parametrize("status", ["enabled", "disabled"])
def test_a_device_with_another_status_is_kept(app: ClientApp, status: str) -> None:
    app.sign_on()
    Device.unscoped.update(status=status, fixed_expires_at=ago(days=3650), ended_at=ago(days=3650))
    assert purge() == purge_output()
    again = app.sign_on(clientId=app.tokens["client_id"])
    assert again.status_code == {"enabled": 201, "disabled": 403}[status]


def test_a_security_event_is_kept_for_90_days_after_its_latest_occurrence(
    app: ClientApp, nagra: HeadEnd
) -> None:
    token = nagra.present(nagra.token()).json()["sessionToken"]
    assert [app.redeem(token).status_code for _ in range(2)] == [201, 401]
    SecurityEvent.unscoped.update(first_at=ago(days=100), latest_at=ago(days=100))
    assert app.redeem(token).status_code == 401, "again"
    assert purge() == purge_output()
    SecurityEvent.unscoped.update(latest_at=ago(days=89))
    assert purge() == purge_output()
    SecurityEvent.unscoped.update(latest_at=ago(days=91))
    assert purge() == purge_output(events=1)


@pytest.mark.parametrize(
    ("add", "kind"),
    [
        (add_choices, "choices of an account"),
        (add_revocations, "revoked access tokens"),
        (add_devices, "deleted devices"),
        (add_events, "security events"),
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


def fail_to_log_in(times: int, **extra: str) -> Any:
    for _ in range(times):
        answer = Client().post("/admin/login/", {"username": "staff", "password": "wrong"}, **extra)  # type: ignore[arg-type]
    return answer


def test_a_failed_login_is_deleted_when_it_no_longer_causes_a_lockout(staff: User) -> None:
    right = {"username": "staff", "password": "a long staff password"}
    assert fail_to_log_in(5).status_code == 429
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=14), tick=True):
        assert purge() == purge_output()
        assert Client().post("/admin/login/", right).status_code == 429, "which extends the lockout"
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=28), tick=True):
        assert purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30), tick=True):
        assert purge() == purge_output(logins=1)
        assert not AccessAttempt.objects.exists()
        assert fail_to_log_in(1, HTTP_USER_AGENT="one").status_code == 200
        assert fail_to_log_in(1, HTTP_USER_AGENT="another").status_code == 200
        assert purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=46), tick=True):
        assert purge("--batch", "1") == purge_output(logins=2)


def test_a_choice_is_deleted_when_it_expires(app: ClientApp, trial: Service) -> None:
    used, _ = app.request_choices()
    assert app.choose_account(used).status_code == 201
    _, token = app.request_choices()
    assert purge() == purge_output()
    assert app.choose_account(used).status_code == 401, "and the reuse is recorded"
    AccountChoice.unscoped.filter(used_at=None).update(expires_at=ago(seconds=1))
    assert purge() == purge_output(choices=1)
    assert app.choose_account(token).status_code == 401
    AccountChoice.unscoped.update(expires_at=ago(seconds=1))
    assert purge() == purge_output(choices=1)


def test_the_proof_of_a_direct_sign_on_is_deleted_by_the_next_purge(app: ClientApp, trial: Service) -> None:
    app.sign_on_directly("account-1")
    assert purge() == purge_output(tokens=1)
    assert app.refresh().status_code == 200


def test_a_session_of_staff_is_deleted_when_it_expires(staff: User) -> None:
    early, late = Client(), Client()
    early.force_login(staff)
    assert purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=8, seconds=1), tick=True):
        late.force_login(staff)
        assert purge() == purge_output(sessions=1)
        assert late.get("/admin/").status_code == 200
        assert early.get("/admin/").status_code == 302


def test_the_state_of_a_document_is_deleted_a_week_after_the_last_fetch(nagra: HeadEnd) -> None:
    now = datetime.now(UTC)
    for number, (good, failed) in enumerate([(8, None), (None, 8), (8, 8), (6, 8), (8, 6), (6, None)]):
        times = {
            name: days and now - timedelta(days=days)
            for name, days in (("good_at", good), ("failed_at", failed))
        }
        DocumentHealth(tenant_id="nagra", address=f"https://a.example/{number}", **times).save()
    assert purge() == purge_output(states=3)
    left = DocumentHealth.objects.for_tenant("nagra").values_list("address", flat=True)
    assert sorted(left) == [f"https://a.example/{number}" for number in (3, 4, 5)]


@pytest.mark.django_db
def test_failed_logins_are_deleted_in_batches_oldest_first() -> None:
    AccessAttempt.objects.bulk_create(
        [AccessAttempt(username=f"stranger-{number}", failures_since_start=1) for number in range(25)]
    )
    AccessAttempt.objects.update(attempt_time=datetime.now(UTC) - timedelta(hours=1))
    AccessAttempt.objects.create(username="staff", failures_since_start=1)
    done = batches(10)
    assert list(islice(done, 5)) == [
        ("session tokens", 0),
        ("choices of an account", 0),
        ("revoked access tokens", 0),
        ("deleted devices", 0),
        ("security events", 0),
    ]
    assert next(done) == ("failed logins", 10)
    assert AccessAttempt.objects.order_by("pk")[0].username == "stranger-10"
    assert list(done) == [
        ("states of documents", 0),
        ("sessions of staff", 0),
        ("guards without end", 0),
        ("failed logins", 10),
        ("failed logins", 5),
    ]
    assert AccessAttempt.objects.get().username == "staff"


def test_the_oldest_session_tokens_are_deleted_first(nagra: HeadEnd) -> None:
    for seconds in (60, 600, 6000):
        add_rows(nagra, 2, seconds=seconds)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    oldest = SessionToken.unscoped.order_by("dead_after").values_list("dead_after", flat=True)[0]
    assert timedelta(seconds=590) < datetime.now(UTC) - oldest < timedelta(seconds=5900)
    first.close()


@pytest.mark.django_db(transaction=True)
def test_an_interrupted_purge_keeps_its_progress(nagra: HeadEnd) -> None:
    add_rows(nagra, 30, seconds=60)
    deletes = 0

    def breaks(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal deletes
        if sql.startswith("DELETE"):
            deletes += 1
            if deletes == 3:
                raise OperationalError("away")
        return execute(sql, *rest)

    with connection.execute_wrapper(breaks), pytest.raises(OperationalError):
        purge("--batch", "10")
    assert SessionToken.unscoped.count() == 10
    assert purge() == purge_output(tokens=10), "the lease was released"


@pytest.mark.django_db
@pytest.mark.parametrize("batch", ["0", "-1", "10001", "many", "1.5", "²"])
def test_the_batch_size_has_limits(batch: str) -> None:
    with pytest.raises(CommandError, match="must be an integer from 1 to 10000"):
        purge(f"--batch={batch}")


def test_every_database_accepts_the_largest_batch(nagra: HeadEnd) -> None:
    add_rows(nagra, 10_000, seconds=60)
    assert purge("--batch", "10000") == purge_output(tokens=10000)


def test_a_second_purge_fails_and_names_the_first(nagra: HeadEnd) -> None:
    add_rows(nagra, 5, seconds=60)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    holder = f"process {os.getpid()} on {re.escape(socket.gethostname())}"
    with pytest.raises(CommandError, match=rf"^Another purge is running: {holder}, since \d{{4}}-.+ UTC\.$"):
        purge()
    assert SessionToken.unscoped.count() == 3
    first.close()
    assert purge() == purge_output(tokens=3)


def test_a_crashed_purge_blocks_others_until_its_lease_expires(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL", timedelta(0))
    add_rows(nagra, 7, seconds=60)
    first = batches(2)
    assert next(first) == ("session tokens", 2)
    Lease.objects.update(expires_at=ago(seconds=1))
    next(first)
    with pytest.raises(CommandError):  # the first purge has renewed its lease
        purge()
    Lease.objects.update(expires_at=ago(seconds=1))
    assert purge() == purge_output(tokens=5)
    with pytest.raises(LeaseNotAvailable):  # another purge has acquired the lease
        next(first)


def test_a_purge_that_loses_its_lease_prints_its_counts(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL", timedelta(0))
    add_rows(nagra, 7, seconds=60)
    out = io.StringIO()

    def take_over(execute: Any, sql: str, *rest: Any) -> Any:
        done = execute(sql, *rest)
        if sql.startswith('DELETE FROM "ags_sessions_sessiontoken"'):
            Lease.objects.update(expires_at=ago(seconds=1))
            lease.LeaseHolder("purge").acquire()
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
        (add_rows, "session tokens", "sessiontoken", "ags_sessions_sessiontoken_dead_after"),
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
        (add_events, "security events", "securityevent", "ags_sessions_securityevent_latest_at"),
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
            assert next(count for name, count in deletions if name == kind) == 100
        plans = {}
        for query in captured:
            verb = query["sql"].split()[0]
            if f'FROM "{table}"' in query["sql"]:
                cursor.execute("EXPLAIN " + query["sql"])
                plans[verb] = "\n".join(line for (line,) in cursor.fetchall())
    deletions.close()
    assert set(plans) == {"SELECT", "DELETE"}
    assert f"Index Scan using {index}" in plans["SELECT"]
    assert "Sort" not in plans["SELECT"]
    assert f"{table}_pkey" in plans["DELETE"]
    assert not any("Seq Scan" in plan for plan in plans.values())


def test_the_default_batch_is_small() -> None:
    assert BATCH_SIZE <= 100
