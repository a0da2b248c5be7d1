"""`manage.py purge` deletes expired rows in small batches."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from asgiref.sync import async_to_sync
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client

from ags.sessions.models import (
    AccountChoice,
    Device,
    Event,
    RevokedAccessToken,
    SecurityEvent,
    SessionToken,
)
from ags.sessions.services.issue import MAX_DATETIME, issue
from ags.sessions.services.replays import known_replays
from providers.contract import Identity
from tenants.models import DocumentHealth, ResourceServer, Service, Tenant
from tenants.snapshot import snapshot
from tests.support.audit_trail import request_context
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.clock import unmeasured_clock
from tests.support.purge import (
    RETENTION,
    add_events,
    add_session_tokens,
    purge_output,
    run_purge,
    time_before,
)


def expire_session_tokens(**rows: Any) -> None:
    """Let the session tokens expire now, after their retention. Rows with a jti are kept."""
    SessionToken.unscoped.filter(**rows).update(created_at=Now() - RETENTION, expires_at=Now())
    SessionToken.unscoped.filter(**rows, jti=None).update(dead_after=Now())


def test_only_expired_session_tokens_are_deleted(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    nagra.present(nagra.token())
    sunrise.present(sunrise.token())
    assert run_purge() == purge_output()
    expire_session_tokens(tenant="nagra")
    nagra.present(nagra.token())
    assert run_purge() == purge_output(tokens=1)
    assert SessionToken.objects.for_tenant("nagra").count() == 1
    assert SessionToken.objects.for_tenant("sunrise").count() == 1
    assert run_purge() == purge_output()


def set_retention(tenant_id: str, days: int) -> None:
    tenant = Tenant.objects.get(pk=tenant_id)
    tenant.event_retention = days
    tenant.save()


def test_session_tokens_and_events_are_kept_for_the_retention_of_their_tenant(
    nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    set_retention("nagra", 2)
    for head_end in (nagra, sunrise):
        assert head_end.present(head_end.token()).status_code == 200
        SessionToken.unscoped.update(expires_at=time_before(hours=47), dead_after=time_before(hours=47))
    for age, deleted in ((timedelta(hours=47), 0), (timedelta(hours=49), 1)):
        SessionToken.unscoped.update(created_at=Now() - age)
        for tenant_id in ("nagra", "sunrise", None):
            add_events(tenant_id, 1, seconds=0, retention=age)
        assert run_purge() == purge_output(tokens=deleted, events=deleted)
    assert SessionToken.unscoped.get().tenant_id == "sunrise"
    refused = Event.unscoped.filter(kind=Event.Kind.REFUSED)
    assert Counter(refused.values_list("tenant", flat=True)) == {"nagra": 1, "sunrise": 2, None: 2}
    set_retention("nagra", 3650)
    assert run_purge() == purge_output()
    set_retention("sunrise", 1)
    assert run_purge() == purge_output(tokens=1, events=2), "a shorter retention applies at once"
    assert not SessionToken.unscoped.exists()


def test_events_of_no_tenant_are_kept_for_30_days(nagra: HeadEnd) -> None:
    set_retention("nagra", 1)
    add_events(None, 1, seconds=-60)
    assert run_purge() == purge_output()
    add_events(None, 2, seconds=1)
    assert run_purge() == purge_output(events=2)
    assert Event.unscoped.filter(tenant=None).count() == 1


def test_a_jti_that_can_be_replayed_is_kept_after_the_retention(nagra: HeadEnd) -> None:
    set_retention("nagra", 1)
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    SessionToken.unscoped.update(created_at=time_before(days=40), expires_at=time_before(days=39))
    assert run_purge() == purge_output()
    snapshot.invalidate("nagra")
    known_replays.clear()
    assert nagra.present(token).json()["reason"] == "replayed"
    SessionToken.unscoped.update(dead_after=Now())
    assert run_purge() == purge_output(tokens=1)


def test_a_row_with_a_jti_is_kept_after_its_token_expires(nagra: HeadEnd) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    assert nagra.present(nagra.token()).status_code == 200
    expire_session_tokens()
    assert run_purge() == purge_output(tokens=1), "the token without a jti"
    answer = nagra.present(token)
    assert (answer.status_code, answer.json()["reason"]) == (401, "replayed")
    SessionToken.unscoped.update(dead_after=Now())
    assert run_purge() == purge_output(tokens=1)


def test_a_jti_is_kept_for_the_maximum_clock_skew(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings |= {"clock_skew": 300, "session_token_ttl": 1}
    service.save()
    token = nagra.token(jti="once", exp=int(datetime.now(UTC).timestamp()) - 290)
    assert nagra.present(token).status_code == 200
    expire_session_tokens()
    assert run_purge() == purge_output()
    assert nagra.present(token).json()["reason"] == "replayed"
    (row,) = SessionToken.objects.for_tenant("nagra")
    with time_machine.travel(row.dead_after, tick=True), unmeasured_clock():
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
            tenant,
            tenant.services[SERVICE],
            Identity("a", jti=str(exp), replayable_until=exp),
            request_context(),
        )
    rows = SessionToken.objects.for_tenant("nagra")
    assert run_purge() == purge_output(), "the session token can still be redeemed"
    expire_session_tokens()
    Service.unscoped.update(strategy="dummy")
    assert run_purge() == purge_output(), "this strategy may accept the assertion"
    Service.unscoped.update(strategy="operator_token")
    assert run_purge() == purge_output(guards=1)
    assert rows.get().jti == str(year_2100), "the assertion is accepted from 2090 on"
    with time_machine.travel(datetime(9989, 12, 1, tzinfo=UTC), tick=True):
        answer = nagra.present(nagra.token(jti="new", exp=int(MAX_DATETIME.timestamp())))
        assert answer.json()["reason"] == "lifetime_too_long"


@pytest.mark.parametrize("hours", [-5, 5])
def test_expiration_depends_on_the_databases_clock(nagra: HeadEnd, hours: int) -> None:
    add_session_tokens(nagra, 1, seconds=1800)
    add_session_tokens(nagra, 1, seconds=-1800)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        assert run_purge() == purge_output(tokens=1)


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
    assert run_purge() == purge_output()
    assert ask("/oauth/introspect") == {"active": False}
    RevokedAccessToken.unscoped.update(expires_at=time_before(seconds=50))
    assert run_purge() == purge_output(), "the clock of a process may be behind"
    RevokedAccessToken.unscoped.update(expires_at=time_before(seconds=70))
    assert run_purge() == purge_output(access=1)


def test_a_deleted_device_is_deleted_when_its_sign_on_expires(app: ClientApp) -> None:
    app.sign_on()
    client_id = app.tokens["client_id"]
    Device.unscoped.update(status="deleted")
    assert run_purge() == purge_output(), "its client may still present a refresh token"
    refreshed = app.refresh()
    assert (refreshed.status_code, refreshed.json()["code"]) == (403, 20003)
    before = app.sign_on(clientId=client_id).json()
    Device.unscoped.update(fixed_expires_at=time_before(minutes=2))
    assert run_purge() == purge_output(devices=1)
    after = app.sign_on(clientId=client_id).json()
    assert before["code"] == 20003
    assert after | {"correlationId": ""} == before | {"correlationId": ""}, (
        "the response is the same as for a deleted device"
    )


@pytest.mark.parametrize("status", ["enabled", "disabled"])
def test_a_device_with_another_status_is_kept(app: ClientApp, status: str) -> None:
    app.sign_on()
    Device.unscoped.update(
        status=status, fixed_expires_at=time_before(days=3650), ended_at=time_before(days=3650)
    )
    assert run_purge() == purge_output()
    again = app.sign_on(clientId=app.tokens["client_id"])
    assert again.status_code == {"enabled": 201, "disabled": 403}[status]


def test_a_security_event_is_kept_for_90_days_after_its_latest_occurrence(
    app: ClientApp, nagra: HeadEnd
) -> None:
    token = nagra.present(nagra.token()).json()["sessionToken"]
    assert [app.redeem(token).status_code for _ in range(2)] == [201, 401]
    SecurityEvent.unscoped.update(first_at=time_before(days=100), latest_at=time_before(days=100))
    assert app.redeem(token).status_code == 401, "again"
    assert run_purge() == purge_output()
    SecurityEvent.unscoped.update(latest_at=time_before(days=89))
    assert run_purge() == purge_output()
    SecurityEvent.unscoped.update(latest_at=time_before(days=91))
    assert run_purge() == purge_output(security_events=1)


def fail_to_log_in(times: int, **extra: str) -> Any:
    for _ in range(times):
        answer = Client().post("/admin/login/", {"username": "staff", "password": "wrong"}, **extra)  # type: ignore[arg-type]
    return answer


def test_a_failed_login_is_deleted_when_it_no_longer_causes_a_lockout(nagra: HeadEnd, staff: User) -> None:
    right = {"username": "staff", "password": "a long staff password"}
    assert fail_to_log_in(5).status_code == 429
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=14), tick=True):
        assert run_purge() == purge_output()
        assert Client().post("/admin/login/", right).status_code == 429, "which extends the lockout"
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=28), tick=True):
        assert run_purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30), tick=True):
        assert run_purge() == purge_output(logins=1)
        assert not AccessAttempt.objects.exists()
        assert fail_to_log_in(1, HTTP_USER_AGENT="one").status_code == 200
        assert fail_to_log_in(1, HTTP_USER_AGENT="another").status_code == 200
        assert run_purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=46), tick=True):
        assert run_purge("--batch", "1") == purge_output(logins=2)


def test_a_choice_is_deleted_when_it_expires(app: ClientApp, trial: Service) -> None:
    used, _ = app.request_choices()
    assert app.choose_account(used).status_code == 201
    _, token = app.request_choices()
    assert run_purge() == purge_output()
    assert app.choose_account(used).status_code == 401, "and the reuse is recorded"
    AccountChoice.unscoped.filter(used_at=None).update(expires_at=time_before(seconds=1))
    assert run_purge() == purge_output(choices=1)
    assert app.choose_account(token).status_code == 401
    AccountChoice.unscoped.update(expires_at=time_before(seconds=1))
    assert run_purge() == purge_output(choices=1)


def test_the_proof_of_a_direct_sign_on_is_kept_for_the_retention(app: ClientApp, trial: Service) -> None:
    app.sign_on_directly("account-1")
    assert run_purge() == purge_output(), "it has expired, but is an event"
    SessionToken.unscoped.update(created_at=Now() - RETENTION)
    assert run_purge() == purge_output(tokens=1)
    assert app.refresh().status_code == 200


def test_a_session_of_staff_is_deleted_when_it_expires(nagra: HeadEnd, staff: User) -> None:
    early, late = Client(), Client()
    early.force_login(staff)
    assert run_purge() == purge_output()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=8, seconds=1), tick=True):
        late.force_login(staff)
        assert run_purge() == purge_output(sessions=1)
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
    assert run_purge() == purge_output(states=3)
    left = DocumentHealth.objects.for_tenant("nagra").values_list("address", flat=True)
    assert sorted(left) == [f"https://a.example/{number}" for number in (3, 4, 5)]
