"""Batches and other transactions: revocations, locked rows, and no deadlocks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from ags.database import async_connection
from ags.database.django_connections import TIMEOUTS
from ags.sessions.models import Device
from ags.sessions.services import redeem, refresh
from ags.sessions.services.devices import NewDevice
from ags.sessions.tokens.opaque import token_hashes
from tenants.snapshot import snapshot
from tests.support.audit_trail import request_context
from tests.support.batches import (
    REDEEM,
    OtherTransaction,
    Posted,
    Request,
    get_statuses,
    is_redeemed,
    redemption,
    rotation,
    run_batch,
)
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.event_loop import open_application, run_in_event_loop, wait_until_async
from tests.support.sign_ons import REFRESH_PATH as REFRESH
from tests.support.sign_ons import get_events
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("long_time_limits", "stale_snapshots"),
]


KNOWN = "a known device redeems"


def requests_of(app: ClientApp, kind: str, accounts: Sequence[str]) -> dict[str, Request]:
    """Sign on a device of each account. Return the next request of each device by its client ID."""
    requests = {}
    for account in accounts:
        signed_on = app.sign_on(account).json()
        client_id = signed_on["client_id"]
        if kind == REFRESH:
            request = rotation(app.head_end, signed_on["refresh_token"])
        else:
            members = {"clientId": client_id} if kind == KNOWN else {}
            request = redemption(app.head_end, app.session_token(account), **members)
        requests[client_id] = request
    return requests


REVOCATIONS: dict[str, tuple[str, str, tuple[int, str]]] = {
    "a session token is revoked": (
        REDEEM,
        "UPDATE ags_sessions_sessiontoken SET revoked_at = now()"
        " WHERE account_id = %s AND redeemed_at IS NULL",
        (401, "not_authenticated"),
    ),
    "an account is suspended": (
        REDEEM,
        "UPDATE ags_sessions_account SET status = 'suspended' WHERE account_id = %s",
        (403, "account_suspended"),
    ),
    "a device is disabled": (
        KNOWN,
        "UPDATE ags_sessions_device SET status = 'disabled' WHERE account_id ="
        " (SELECT id FROM ags_sessions_account WHERE account_id = %s)",
        (403, "device_disabled"),
    ),
    "a sign-on is ended": (
        REFRESH,
        "UPDATE ags_sessions_device SET ended_at = now(), end_reason = 'revoked' WHERE account_id ="
        " (SELECT id FROM ags_sessions_account WHERE account_id = %s)",
        (401, "not_authenticated"),
    ),
}


@pytest.mark.postgresql
@pytest.mark.parametrize(("kind", "statement", "refusal"), REVOCATIONS.values(), ids=REVOCATIONS)
def test_a_revocation_during_a_batch_rejects_one_request(
    app: ClientApp, other: OtherTransaction, kind: str, statement: str, refusal: tuple[int, str]
) -> None:
    requests = [*requests_of(app, kind, ["a", "b", "revoked", "d"]).values()]

    async def during(_: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the revocation")
        other.pg.commit()

    other.execute(statement, "revoked")
    answers = run_batch(requests, during)
    refused = answers.pop(2)
    assert (refused[0], refused[1]["reason"]) == refusal
    assert set(get_statuses(answers)) == {200 if kind == REFRESH else 201}
    if kind != REFRESH:
        spent = [is_redeemed(request.body["parameters"][0]["value"]) for request in requests]
        assert spent == [True, True, False, True]
    assert get_events() == []


@pytest.mark.postgresql
@pytest.mark.parametrize("kind", [REDEEM, REFRESH])
def test_a_locked_row_fails_only_its_own_request(
    app: ClientApp, other: OtherTransaction, kind: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AGS_DATABASE_POOLER = "none"
    monkeypatch.setitem(async_connection.LANE_TIMEOUTS, "lock_timeout", 50)
    monkeypatch.setitem(TIMEOUTS, "statement_timeout", 1000 * PATIENCE)
    app.sign_on("locked")
    requests = [*requests_of(app, kind, ["a", "b", "locked", "d"]).values()]
    table = "ags_sessions_account" if kind == REDEEM else "ags_sessions_device"
    account = f"{'id' if kind == REDEEM else 'account_id'} = (SELECT max(id) FROM ags_sessions_account"
    other.execute(f"SELECT id FROM {table} WHERE {account} WHERE account_id = %s) FOR UPDATE", "locked")
    answers = run_batch(requests)
    other.pg.rollback()
    locked = answers.pop(2)
    assert (locked[0], locked[1]["reason"]) == (503, "unavailable")
    assert set(get_statuses(answers)) == {200 if kind == REFRESH else 201}
    assert get_statuses(run_batch(requests[2:3])) == [200 if kind == REFRESH else 201], "nothing was used up"
    assert get_events() == []


@pytest.mark.postgresql
def test_a_client_that_disconnects_does_not_affect_its_batch(
    app: ClientApp, nagra: HeadEnd, other: OtherTransaction
) -> None:
    tokens = [app.session_token(account) for account in ("a", "gone", "c")]

    async def during(posted: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the row")
        posted[1].cancel()
        await asyncio.wait([posted[1]])
        assert posted[1].cancelled()
        other.pg.rollback()

    other.execute("SELECT id FROM ags_sessions_sessiontoken ORDER BY id LIMIT 1 FOR UPDATE")
    answers = run_batch([redemption(nagra, token) for token in tokens], during)
    assert [(status, body["accountId"]) for status, body in answers] == [(201, "a"), (201, "c")]
    assert all(is_redeemed(token) for token in tokens), "a running statement is not cancelled"
    assert Device.unscoped.count() == 3
    assert get_events() == []


@pytest.fixture
def _plans_of_large_tables(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make PostgreSQL use indexes: a sequential scan could return rows in order by chance."""
    options = connection.settings_dict["OPTIONS"]
    off = [f"-c enable_{name}=off" for name in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")]
    value = " ".join([options.get("options", ""), *off])
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, "options": value})


ORDERS: dict[str, tuple[str, str]] = {
    "session tokens": (
        REDEEM,
        "SELECT id FROM ags_sessions_sessiontoken WHERE redeemed_at IS NULL ORDER BY id",
    ),
    "accounts": (REDEEM, "SELECT id FROM ags_sessions_account ORDER BY account_id"),
    "known devices": (KNOWN, "SELECT id FROM ags_sessions_device ORDER BY client_id"),
    "sign-ons": (REFRESH, "SELECT id FROM ags_sessions_device ORDER BY client_id"),
}


@pytest.mark.postgresql
@pytest.mark.usefixtures("_plans_of_large_tables")
@pytest.mark.parametrize(("kind", "rows"), ORDERS.values(), ids=ORDERS)
def test_a_batch_locks_rows_in_order(app: ClientApp, other: OtherTransaction, kind: str, rows: str) -> None:
    """So that concurrent batches cannot deadlock."""
    requests = requests_of(app, kind, [f"account-{number}" for number in (3, 0, 5, 2, 4, 1)])
    in_order = [*requests] if kind == REDEEM else sorted(requests)

    async def during(_: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the row")
        assert len(other.execute(f"{rows} OFFSET 1 FOR UPDATE NOWAIT")) == 5
        other.pg.rollback()

    other.execute(f"{rows} LIMIT 1 FOR UPDATE")
    answers = run_batch([requests[client_id] for client_id in in_order[::-1]], during)
    assert set(get_statuses(answers)) == {200 if kind == REFRESH else 201}


@pytest.mark.postgresql
@pytest.mark.usefixtures("_plans_of_large_tables")
@pytest.mark.parametrize("kind", [REDEEM, REFRESH])
def test_processes_with_the_same_rows_do_not_deadlock(
    app: ClientApp, nagra: HeadEnd, other: OtherTransaction, kind: str
) -> None:
    """A third transaction holds a row in the middle until both batches wait."""
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    execute: Any
    rows: list[Any]
    if kind == REDEEM:
        execute, service = redeem._redeemer.redeem_all, tenant.services[SERVICE]
        tokens = [app.session_token(f"account-{number}") for number in range(7)]
        rows = [
            redeem._Redemption(tenant, service, request_context(), token_hashes(token), NewDevice({}))
            for token in tokens
        ]
        other.execute("SELECT id FROM ags_sessions_sessiontoken ORDER BY id OFFSET 3 LIMIT 1 FOR UPDATE")
    else:
        for _ in range(7):
            app.sign_on()
        execute = refresh._rotate_all
        common = {"tenant": "nagra", "version": tenant.version, "current": 0, "presented": 0}
        rows = [
            {**common, "rotated": sign_on, "refresh_ttl": 60, "new_used": []}
            for sign_on in Device.unscoped.order_by("client_id").values_list("sign_on", flat=True)
        ]
        other.execute("SELECT id FROM ags_sessions_device ORDER BY client_id OFFSET 3 LIMIT 1 FOR UPDATE")

    def execute_in_a_loop(rows: Sequence[Any]) -> list[Any]:
        outcomes: list[Any] = []

        async def test() -> None:
            async with open_application():
                outcomes.extend(await execute(rows))

        run_in_event_loop(test())
        return outcomes

    with ThreadPoolExecutor() as pool:
        both = [pool.submit(execute_in_a_loop, ordered) for ordered in (rows, rows[::-1])]
        wait_until(lambda: other.waiting() == 2, "the statements do not wait")
        other.pg.rollback()
        done = [future.result(PATIENCE) for future in both]
    assert sorted([outcome is not None for outcome in outcomes] for outcomes in done) == [
        [False] * 7,
        [True] * 7,
    ]
