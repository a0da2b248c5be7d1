"""Issuing session tokens, also while the snapshot of a process is stale."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.db.utils import InterfaceError, OperationalError
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import SessionToken
from ags.sessions.services import issue as issuing
from ags.sessions.services import replays
from ags.sessions.services.issue import CLOCK_MARGIN, token_row
from ags.sessions.tokens.opaque import new_token, token_hashes
from providers.claims import MAX_CLOCK_SKEW
from providers.contract import FailureReason, Identity, VerificationFailed
from tenants import snapshot as tenants_snapshot
from tenants.models import Service, Tenant
from tests.support.audit_trail import request_context
from tests.support.clients import SERVICE, HeadEnd
from tests.support.issues import get_session_tokens, get_verbs
from tests.support.operators import add_key
from tests.support.rejections import revoke_key, save_disabled_tenant
from tests.support.waiting import PATIENCE, wait_until

issue = async_to_sync(issuing.issue)
insert = async_to_sync(issuing._insert)

TOKEN = re.compile(r"[a-z0-9]{26}")


# The row


def test_the_row_contains_everything_but_the_token(nagra: HeadEnd) -> None:
    answer = nagra.present(nagra.token(OpfAccountId="Kühn 7", jti="jti-1"), x_correlation_id="call-1")
    token = answer.json()["sessionToken"]
    assert answer.json() == {"sessionToken": token}
    assert TOKEN.fullmatch(token)
    assert answer.headers["Cache-Control"] == "no-store"
    (row,) = get_session_tokens()
    assert row.key is not None
    assert (row.tenant_id, row.service.name, row.key.kid) == ("nagra", SERVICE, nagra.kid)
    assert (row.account_id, row.jti, row.correlation_id) == ("Kühn 7", "jti-1", "call-1")
    assert row.revoked_at is None
    assert bytes(row.token_hash) in token_hashes(token)
    for value in SessionToken.unscoped.values().get().values():
        assert token not in str(value)
        assert token.encode() not in (bytes(value) if isinstance(value, bytes | memoryview) else b"")


def test_a_generated_correlation_id_is_stored(nagra: HeadEnd) -> None:
    answer = nagra.present(nagra.token(), x_correlation_id="not of the form")
    assert [row.correlation_id for row in get_session_tokens()] == [answer.headers["x-correlation-id"]]


def test_tokens_are_unique(nagra: HeadEnd) -> None:
    tokens = [nagra.present(nagra.token()).json()["sessionToken"] for _ in range(20)]
    assert len(set(tokens)) == 20
    assert [bytes(row.token_hash) for row in get_session_tokens()] == [
        token_hashes(token)[0] for token in tokens
    ]


def test_a_hash_is_keyed_and_matches_under_every_encryption_key(nagra: HeadEnd, settings: Any) -> None:
    old, new = settings.AGS_ENCRYPTION_KEYS[0], bytes(range(100, 132))
    token = nagra.present(nagra.token()).json()["sessionToken"]
    (row,) = get_session_tokens()
    for keys in ((old, new), (new, old)):
        settings.AGS_ENCRYPTION_KEYS = keys
        assert bytes(row.token_hash) in token_hashes(token)
    settings.AGS_ENCRYPTION_KEYS = (new,)
    assert bytes(row.token_hash) not in token_hashes(token)


@pytest.mark.parametrize("ttl", [1, 300, 3600])
@pytest.mark.parametrize("hours", [-5, 0, 5], ids=["late", "right", "early"])
def test_the_times_of_a_row_are_taken_from_the_databases_clock(nagra: HeadEnd, ttl: int, hours: int) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["session_token_ttl"] = ttl
    service.save()
    before = get_database_time()
    token = nagra.token()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        # With SQLite, AGS has no other clock.
        sent = token if connection.vendor == "postgresql" else nagra.token()
        assert nagra.present(sent).status_code == 200
    row = SessionToken.unscoped.get()
    assert before <= row.created_at <= get_database_time()
    # SQLite counts milliseconds.
    assert abs(row.expires_at - row.created_at - timedelta(seconds=ttl)) <= timedelta(milliseconds=2)
    assert row.dead_after == row.expires_at
    assert SessionToken.unscoped.filter(expires_at__gt=Now(), created_at__lte=Now()).exists(), (
        "times written by SQL and by Django can be compared"
    )


# The jti


@pytest.mark.parametrize(
    ("ttl", "exp"), [(3600, 60), (1, 3000)], ids=["the token expires last", "the assertion expires last"]
)
def test_a_row_is_kept_until_token_and_assertion_have_expired(nagra: HeadEnd, ttl: int, exp: int) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["session_token_ttl"] = ttl
    service.save()
    expires = int(time.time()) + exp
    nagra.present(nagra.token(jti="once", exp=expires))
    (row,) = get_session_tokens()
    replayable_until = datetime.fromtimestamp(expires + MAX_CLOCK_SKEW + CLOCK_MARGIN, UTC)
    assert row.dead_after == max(row.expires_at, replayable_until)


@pytest.mark.parametrize("until", [1e15, 253402300799, 1e300])
def test_a_proof_that_never_expires_is_kept_until_the_year_9999(nagra: HeadEnd, until: float) -> None:
    tenant = tenants_snapshot.snapshot.get_tenant("nagra")
    assert tenant is not None
    issue(
        tenant, tenant.services[SERVICE], Identity("a", jti="once", replayable_until=until), request_context()
    )
    (row,) = get_session_tokens()
    assert row.dead_after.year == 9999


def test_a_jti_is_accepted_once_per_key_and_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    second = HeadEnd("nagra", "second", bytes(range(60, 100)))
    add_key(second)
    for head_end in (nagra, second, sunrise):
        assert head_end.present(head_end.token(jti="same")).status_code == 200
        for changes in ({}, {"OpfAccountId": "another"}, {"exp": int(time.time()) + 9}):
            answer = head_end.present(head_end.token(jti="same", **changes))
            assert (answer.status_code, answer.json()["reason"]) == (401, "replayed")
        assert head_end.present(head_end.token(jti="Same")).status_code == 200, "compared exactly"
    assert (len(get_session_tokens()), len(get_session_tokens("sunrise"))) == (4, 2)


def test_a_replay_is_detected_after_a_change_of_the_tenant(nagra: HeadEnd, stale_snapshots: None) -> None:
    token = nagra.token(jti="once")
    nagra.present(token)
    Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
    assert nagra.present(token).json()["reason"] == "replayed"
    assert len(get_session_tokens()) == 1


def test_an_assertion_without_jti_is_accepted_until_it_expires(nagra: HeadEnd) -> None:
    token = nagra.token()
    assert [nagra.present(token).status_code for _ in range(3)] == [200] * 3
    assert [row.jti for row in get_session_tokens()] == [None] * 3


def test_a_jti_is_ignored_if_replay_is_off(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["replay"] = "off"
    service.save()
    token = nagra.token(jti="same")
    assert [nagra.present(token).status_code for _ in range(3)] == [200] * 3


def test_a_jti_without_a_key_is_accepted_once_per_service(nagra: HeadEnd) -> None:
    trial = {"tenant_id": "nagra", "strategy": "dummy", "display_name": "Trial", "enabled": True}
    for name in ("one", "two"):
        Service(name=name, **trial).save()
    tenant = tenants_snapshot.snapshot.get_tenant("nagra")
    assert tenant is not None
    identity = Identity("somebody", jti="once", replayable_until=time.time() + 60)
    for name in ("one", "two"):
        assert TOKEN.fullmatch(issue(tenant, tenant.services[name], identity, request_context()))
        with pytest.raises(VerificationFailed) as rejected:
            issue(tenant, tenant.services[name], identity, request_context())
        assert rejected.value.reason is FailureReason.REPLAYED


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_statements_with_the_same_assertions_do_not_deadlock(nagra: HeadEnd) -> None:
    """A third transaction holds an assertion in the middle until both statements wait."""
    tenant = tenants_snapshot.snapshot.get_tenant("nagra")
    assert tenant is not None
    until = time.time() + 60
    proofs = [Identity("somebody", jti=jti, replayable_until=until) for jti in "abcdefg"]
    rows = [
        token_row(
            tenant, tenant.services[SERVICE], proof, request_context(), token_hash=new_token()[1], ttl=60
        )
        for proof in proofs
    ]

    def store(rows: list[Any]) -> list[bool]:
        try:
            return insert(rows)
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        with transaction.atomic():
            assert insert(rows[3:4]) == [True]
            both = [pool.submit(store, ordered) for ordered in (rows, rows[::-1])]
            wait_until(lambda: blocked(2), "the statements do not wait")
            transaction.set_rollback(True)
        first, second = (future.result(PATIENCE) for future in both)
    assert {tuple(first), tuple(second)} == {(True,) * 7, (False,) * 7}


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_error_while_explaining_a_rejection_is_a_503(
    nagra: HeadEnd, error: type[Exception], stale_snapshots: None
) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200

    def away(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.lstrip().startswith("SELECT g.row_number"):
            raise error("away")
        return execute(sql, *arguments)

    with connection.execute_wrapper(away):
        response = nagra.present(token)
    assert (response.status_code, response.json()["reason"]) == (503, "unavailable")
    assert len(get_session_tokens()) == 1


def test_a_replay_is_explained_with_one_statement(nagra: HeadEnd, stale_snapshots: None) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    with CaptureQueriesContext(connection) as captured:
        assert nagra.present(token).json()["reason"] == "replayed"
    assert get_verbs(captured) == ["INSERT", "SELECT"]


def test_a_known_replay_is_rejected_without_the_database(
    nagra: HeadEnd, stale_snapshots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MAX_KNOWN_REPLAYS", 2)
    tokens = [nagra.token(jti=jti) for jti in "abc"]
    for token in [*tokens, *tokens]:
        nagra.present(token)
    for token in tokens[1:]:
        with CaptureQueriesContext(connection) as captured:
            assert nagra.present(token).json()["reason"] == "replayed"
        assert get_verbs(captured) == []
    with CaptureQueriesContext(connection) as captured:
        assert nagra.present(tokens[0]).json()["reason"] == "replayed", "only the latest replays are known"
    assert get_verbs(captured) == ["INSERT", "SELECT"]
    assert len(get_session_tokens()) == 3


def test_a_known_replay_is_specific_to_its_key_and_jti(nagra: HeadEnd) -> None:
    second = HeadEnd("nagra", "second", bytes(range(60, 100)))
    add_key(second)
    for _ in range(3):
        nagra.present(nagra.token(jti="same"))
    assert second.present(second.token(jti="same")).status_code == 200
    assert nagra.present(nagra.token(jti="other")).status_code == 200
    assert nagra.present(nagra.token()).status_code == 200


def blocked(number: int) -> bool:
    """Return True if that number of statements wait for another transaction."""
    with connection.cursor() as cursor:
        # Otherwise pg_stat_activity does not change within a transaction.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted"
            " AND locktype IN ('transactionid', 'spectoken') AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0] == number)


@pytest.mark.parametrize("account", ["", "x" * 256, "a\nb", "a\x00", "\x7f", "\x9f"])
def test_no_provider_can_issue_for_an_invalid_account_id(nagra: HeadEnd, account: str) -> None:
    Service(tenant_id="nagra", name="Trial", strategy="dummy", display_name="Trial", enabled=True).save()
    body = {"parameters": [{"name": "Account", "value": account}]}
    assert nagra.post(body, x_auth_service_id="Trial").status_code in (400, 401)
    with pytest.raises(VerificationFailed):
        Identity(account)
    with pytest.raises(VerificationFailed):
        Identity("somebody", jti=account)
    assert get_session_tokens() == []


# Other operators and providers


def test_another_operator_cannot_issue_for_a_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    forged = HeadEnd("nagra", nagra.kid, sunrise.secret)
    borrowed = HeadEnd("nagra", sunrise.kid, sunrise.secret)
    answers = [
        sunrise.present(sunrise.token(), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra"), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra")),
        forged.present(forged.token()),
        borrowed.present(borrowed.token()),
    ]
    assert [answer.json()["reason"] for answer in answers] == [
        "not_authenticated",
        "not_authenticated",
        "tenant_mismatch",
        "not_authenticated",
        "not_authenticated",
    ]
    assert get_session_tokens() == get_session_tokens("sunrise") == []


def test_a_change_of_one_tenant_does_not_affect_another(
    nagra: HeadEnd, sunrise: HeadEnd, stale_snapshots: None
) -> None:
    sunrise.present(sunrise.token())
    save_disabled_tenant()
    with CaptureQueriesContext(connection) as captured:
        assert sunrise.present(sunrise.token()).status_code == 200
    assert get_verbs(captured) == ["INSERT"]


def test_a_provider_without_keys_can_issue_and_be_disabled(nagra: HeadEnd, stale_snapshots: None) -> None:
    Service(tenant_id="nagra", name="Trial", strategy="dummy", display_name="Trial", enabled=True).save()

    def sign_on() -> int:
        body = {"parameters": [{"name": "Account", "value": "somebody"}]}
        status: int = nagra.post(body, x_auth_service_id="Trial").status_code
        return status

    assert sign_on() == 200
    assert [(row.account_id, row.key_id, row.jti) for row in get_session_tokens()] == [
        ("somebody", None, None)
    ]
    revoke_key()
    assert sign_on() == 200
    service = Service.objects.for_tenant("nagra").get(name="Trial")
    service.enabled = False
    service.save()
    assert sign_on() == 403
    assert len(get_session_tokens()) == 2
