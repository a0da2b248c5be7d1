"""Sign-ons and refreshes in batches: each request gets the response that it would get alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from ags.database import batching, postgresql, threads
from ags.database.batching import Batcher
from ags.database.django_connections import TIMEOUTS
from ags.sessions.models import Account, AccountStatus, Device, SecurityEvent, SessionToken
from ags.sessions.services import account_choice, redeem, refresh, security_events, sign_on
from ags.sessions.services.devices import NewDevice
from ags.sessions.tokens.opaque import hash_token, new_token, token_hashes
from providers.contract import Endpoint
from providers.operator_token.strategy import OperatorToken
from tenants.models import Service, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.database import database_url
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.responses import CORRELATION_ID
from tests.support.sign_ons import REFRESH_PATH as REFRESH
from tests.support.sign_ons import decode_claims, get_events, set_grace_period_of_a_minute
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("patient", "stale_snapshots")]

REDEEM, SIGN_ON, CHOOSE = "/ags/signOnWithSessionToken", "/ags/signOn", "/ags/subsequentSignOn"

BATCHERS = {
    REDEEM: redeem._redemptions,
    SIGN_ON: sign_on._sign_ons,
    CHOOSE: account_choice._redemptions,
    REFRESH: refresh._rotations,
}

NOT_ACCEPTED_MESSAGE = "The credentials are invalid or have expired."

Answers = list[tuple[int, Any]]
Posted = asyncio.Task[tuple[int, Any]]


@pytest.fixture
def patient(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limits to that of the test."""
    for module in (batching, threads):
        monkeypatch.setattr(module, "QUEUE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(postgresql, "RESPONSE_TIMEOUT", PATIENCE)
    settings.AGS_DATABASE_POOLER = "transaction"  # no limits in the startup options


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    body: Any
    headers: Mapping[str, str]


def redemption(head_end: HeadEnd, token: str, **members: Any) -> Request:
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "sessionToken", "value": token}], **device}
    return Request(REDEEM, body, head_end.headers())


def rotation(head_end: HeadEnd, token: str) -> Request:
    return Request(REFRESH, {}, head_end.headers(x_auth_service_id=None, authorization=f"Bearer {token}"))


async def post_together(requests: Sequence[Request]) -> list[Posted]:
    """Post requests to one path, and execute them as a batch once all are submitted."""
    (path,) = {request.path for request in requests}
    execute_together(BATCHERS[path], len(requests))
    return [
        asyncio.create_task(post_json(request.path, request.body, request.headers)) for request in requests
    ]


def execute_together(batcher: Batcher, number: int) -> asyncio.Task[None]:
    """Execute a batch once that number of rows is submitted."""

    async def execute() -> None:
        await wait_until_async(lambda: len(batcher._pending) == number, "a request does not submit a row")
        await batcher._run()

    batcher._task = asyncio.create_task(execute())
    return batcher._task


def answers_to(
    requests: Sequence[Request], during: Callable[[list[Posted]], Awaitable[None]] | None = None
) -> Answers:
    """Return the responses to a batch of requests. `during` is awaited before they complete."""
    answers: Answers = []

    async def test() -> None:
        async with open_application():
            posted = await post_together(requests)
            if during is not None:
                await during(posted)
            answers.extend([await task for task in posted if not task.cancelled()])

    run_in_event_loop(test())
    return answers


def statuses(answers: Answers) -> list[int]:
    return [status for status, _ in answers]


def is_redeemed(token: str) -> bool:
    return SessionToken.unscoped.filter(token_hash=hash_token(token), redeemed_at__isnull=False).exists()


def limit_devices(limit: int) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.device_limit = limit
    tenant.save()
    snapshot.invalidate("nagra")


# Redeeming


@pytest.mark.postgresql
@pytest.mark.parametrize("number", [8, 40], ids=["one batch", "two batches"])
def test_each_request_of_a_batch_gets_a_device_of_its_account(
    app: ClientApp, nagra: HeadEnd, sunrise: HeadEnd, number: int
) -> None:
    expected = [((nagra, sunrise)[n % 2], f"account-{n % 6}", {"number": n}) for n in range(number)]
    requests = [
        redemption(head_end, ClientApp(head_end).session_token(account), deviceInformation=information)
        for head_end, account, information in expected
    ]
    answers = answers_to(requests)
    assert set(statuses(answers)) == {201}
    devices = {device.client_id: device for device in Device.unscoped.select_related("account")}
    assert len(devices) == number
    for (head_end, account, information), (_, body) in zip(expected, answers, strict=True):
        device = devices[body["client_id"]]
        assert (device.tenant_id, device.account.account_id) == (head_end.tenant_id, account)
        assert device.information == information
        payload = decode_claims(body["access_token"])
        assert (payload["tenantId"], payload["accountId"], payload["deviceId"], payload["sid"]) == (
            head_end.tenant_id,
            account,
            device.client_id,
            device.sign_on,
        )
        assert body["accountId"] == account
    assert Account.unscoped.count() == min(number, 6)


@pytest.mark.postgresql
@pytest.mark.parametrize("times", [2, 10])
def test_one_of_several_redemptions_of_a_token_succeeds(app: ClientApp, nagra: HeadEnd, times: int) -> None:
    same, other = app.session_token(), app.session_token("other")
    answers = answers_to([redemption(nagra, same)] * times + [redemption(nagra, other)])
    assert sorted(statuses(answers[:-1])) == [201] + [401] * (times - 1)
    assert {body["reason"] for status, body in answers if status == 401} == {"not_authenticated"}
    assert answers[-1][0] == 201
    assert get_events() == [("session_token_reused", "account-1", times - 1)]
    accounts = Device.unscoped.values_list("account__account_id", flat=True)
    assert sorted(accounts) == ["account-1", "other"]


@pytest.mark.postgresql
@pytest.mark.parametrize("order", [1, -1], ids=["others first", "others last"])
def test_a_token_in_a_batch_is_redeemed_only_by_its_tenant_and_service(
    app: ClientApp, nagra: HeadEnd, sunrise: HeadEnd, order: int
) -> None:
    other_service = nagra.headers(x_auth_service_id="Other")
    Service(tenant_id="nagra", name="Other", strategy="operator_token", display_name="O", enabled=True).save()
    snapshot.invalidate("nagra")
    token = app.session_token()
    own = redemption(nagra, token)
    requests = [redemption(sunrise, token), replace(own, headers=other_service), own][::order]
    answers = answers_to(requests)
    assert statuses(answers)[::order] == [401, 401, 201]
    device = Device.unscoped.get()
    assert (device.tenant_id, device.account.account_id) == ("nagra", "account-1")
    assert device.service_id == Service.objects.for_tenant("nagra").get(name=SERVICE).pk


@pytest.mark.postgresql
@pytest.mark.parametrize("present", [0, 1])
def test_a_batch_respects_the_device_limit(app: ClientApp, nagra: HeadEnd, present: int) -> None:
    limit = 3
    for _ in range(present):
        app.sign_on()
    limit_devices(limit)
    tokens = [app.session_token() for _ in range(limit + 3)] + [app.session_token("other")]
    answers = answers_to([redemption(nagra, token) for token in tokens])
    granted = limit - present
    assert Counter(statuses(answers[:-1])) == {201: granted, 403: limit + 3 - granted}
    assert {body["code"] for status, body in answers if status == 403} == {20007}
    assert answers[-1][0] == 201, "the limit applies to each account"
    assert [is_redeemed(token) for token in tokens] == [status == 201 for status, _ in answers]
    assert Device.unscoped.filter(account__account_id="account-1").count() == limit
    assert get_events() == []


@pytest.mark.postgresql
@pytest.mark.parametrize("is_known", [False, True], ids=["new devices", "known devices"])
def test_a_suspended_account_does_not_affect_others_in_a_batch(
    app: ClientApp, nagra: HeadEnd, is_known: bool
) -> None:
    accounts = ["a", "suspended", "c", "d"]
    members = [
        {"clientId": app.sign_on(account).json()["client_id"]} if is_known else {} for account in accounts
    ]
    tokens = [app.session_token(account) for account in accounts]
    requests = [redemption(nagra, token, **device) for token, device in zip(tokens, members, strict=True)]
    suspended, _ = Account.unscoped.get_or_create(tenant_id="nagra", account_id="suspended")
    Account.unscoped.filter(pk=suspended.pk).update(status=AccountStatus.SUSPENDED)
    before = Device.unscoped.filter(account=suspended).values("sign_on").first()
    answers = answers_to(requests)
    assert statuses(answers) == [201, 403, 201, 201]
    assert answers[1][1]["code"] == 20002
    assert [is_redeemed(token) for token in tokens] == [True, False, True, True]
    assert Device.unscoped.filter(account=suspended).values("sign_on").first() == before
    assert Device.unscoped.count() == (4 if is_known else 3)
    Account.unscoped.filter(pk=suspended.pk).update(status=AccountStatus.ACTIVE)
    assert statuses(answers_to([requests[1]])) == [201]
    assert get_events() == []


@pytest.mark.postgresql
def test_a_known_device_that_signs_on_twice_in_a_batch_keeps_one_sign_on(
    app: ClientApp, nagra: HeadEnd
) -> None:
    one, other = [app.sign_on(account).json()["client_id"] for account in ("one", "other")]
    requests = [
        redemption(nagra, app.session_token(account), **members)
        for account, members in [
            ("one", {"clientId": one}),
            ("other", {"clientId": other}),
            ("one", {"clientId": one}),
            ("one", {"deviceInformation": {}}),
        ]
    ]
    answers = answers_to(requests)
    assert statuses(answers) == [201] * 4
    bodies = [body for _, body in answers]
    assert [body["client_id"] for body in bodies[:3]] == [one, other, one]
    assert bodies[3]["client_id"] not in {one, other}
    sign_ons = {body["access_token"]: decode_claims(body["access_token"])["sid"] for body in bodies}
    assert len(set(sign_ons.values())) == 4
    stored = set(Device.unscoped.values_list("sign_on", flat=True))
    assert len(stored) == 3
    is_valid = [sign_ons[body["access_token"]] in stored for body in bodies]
    assert (is_valid[1], is_valid[3], is_valid[0] + is_valid[2]) == (True, True, 1)
    assert [app.refresh(body["refresh_token"]).status_code == 200 for body in bodies] == is_valid
    assert get_events() == []


# Rejections


@pytest.mark.postgresql
@pytest.mark.parametrize("path", [REDEEM, CHOOSE])
def test_rejected_tokens_are_explained_in_a_batch_while_others_sign_on(
    app: ClientApp, nagra: HeadEnd, trial: Service, path: str
) -> None:
    accounts = ["a-1", "b-1", "c-1"]
    if path == REDEEM:
        states, kind = redeem._rejections.states, "session_token_reused"
        spent = [redemption(nagra, app.session_token(account)) for account in accounts]
        unknown = redemption(nagra, new_token())
    else:
        states, kind = account_choice._rejections.states, "user_account_token_reused"
        headers = nagra.headers(x_auth_service_id=TRIAL)
        tokens = [app.request_choices(f"{account},{account[0]}-2")[0] for account in accounts]
        spent = [Request(CHOOSE, {}, {**headers, "user-token": token}) for token in tokens]
        unknown = Request(CHOOSE, {}, {**headers, "user-token": f"{new_token()}.0"})
    assert statuses(answers_to(spent)) == [201] * 3
    granted = redemption(nagra, app.session_token("another"))
    requests = [*spent, unknown, *spent[::-1], unknown, spent[1]]
    answers: Answers = []

    async def test() -> None:
        async with open_application():
            reported = execute_together(security_events._events, 7)
            explained = execute_together(states, len(requests))
            *posted, last = [post_json(request.path, request.body, request.headers) for request in requests]
            posted = [asyncio.create_task(response) for response in posted]
            others = len(requests) - 1  # the batch waits for the last request
            await wait_until_async(
                lambda: len(states._pending) == others, "a rejection is not part of the batch"
            )
            assert (await post_json(granted.path, granted.body, granted.headers))[0] == 201
            posted.append(asyncio.create_task(last))
            await explained
            await reported
            answers.extend([await task for task in posted])

    run_in_event_loop(test())
    assert statuses(answers) == [401] * len(requests)
    assert {(body["code"], body["message"]) for _, body in answers} == {(40100, NOT_ACCEPTED_MESSAGE)}
    assert sorted(get_events()) == [(kind, "a-1", 2), (kind, "b-1", 3), (kind, "c-1", 2)]


@pytest.mark.postgresql
def test_a_blocked_security_event_does_not_block_sign_ons(
    app: ClientApp, nagra: HeadEnd, other: Other
) -> None:
    spent = redemption(nagra, app.session_token())
    assert statuses(answers_to([spent, spent])) == [201, 401]
    granted = redemption(nagra, app.session_token())
    answers: Answers = []

    async def test() -> None:
        async with open_application():
            reported = asyncio.create_task(post_json(spent.path, spent.body, spent.headers))
            await wait_until_async(other.waiting, "the event does not wait")
            answers.append(await post_json(granted.path, granted.body, granted.headers))
            assert not reported.done(), "the response waits for the commit of the event"
            other.pg.rollback()
            answers.append(await reported)

    other.execute("SELECT id FROM ags_sessions_securityevent FOR UPDATE")
    run_in_event_loop(test())
    assert statuses(answers) == [201, 401]
    assert get_events() == [("session_token_reused", "account-1", 2)]


@pytest.mark.postgresql
def test_processes_that_record_the_same_events_do_not_deadlock(nagra: HeadEnd, other: Other) -> None:
    """A third transaction holds an event in the middle until both statements wait."""
    kind = SecurityEvent.Kind.SESSION_TOKEN_REUSED
    rows = [
        {"tenant": "nagra", "kind": kind, "subject": str(n), "account": "a", "correlation": "c"}
        for n in range(7)
    ]

    def record(rows: Sequence[Any]) -> None:
        async def test() -> None:
            async with open_application():
                await security_events._record(rows)

        run_in_event_loop(test())

    record(rows)
    other.execute("SELECT id FROM ags_sessions_securityevent ORDER BY subject OFFSET 3 LIMIT 1 FOR UPDATE")
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(record, ordered) for ordered in (rows, rows[::-1])]
        wait_until(lambda: other.waiting() == 2, "the statements do not wait")
        other.pg.rollback()
        for future in both:
            future.result(PATIENCE)
    assert [times for _, _, times in get_events()] == [3] * 7


# Signing on with a proof


def presentation(head_end: HeadEnd, account: str, jti: str | None) -> Request:
    assertion = {"name": "OperatorAuthToken", "value": head_end.token(OpfAccountId=account, jti=jti)}
    body = {"parameters": [assertion], "deviceInformation": {}}
    return Request(SIGN_ON, body, head_end.headers())


@pytest.fixture
def sign_on_with_token(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signed proofs with a jti sign devices on."""
    monkeypatch.setattr(OperatorToken, "endpoints", (*OperatorToken.endpoints, Endpoint.SIGNON))


@pytest.mark.postgresql
def test_one_of_several_sign_ons_with_an_assertion_succeeds(
    nagra: HeadEnd, sign_on_with_token: None, caplog: pytest.LogCaptureFixture
) -> None:
    jtis = ["once", "another", "once", "once", None]
    with caplog.at_level("INFO", "ags.request"):
        answers = answers_to([presentation(nagra, f"account-{n}", jti) for n, jti in enumerate(jtis)])
    reasons = [vars(record)["reason"] for record in caplog.records if record.name == "ags.request"]
    assert Counter(reasons) == {None: 3, "replayed": 2}
    first, another, *again, without = statuses(answers)
    assert (another, without, sorted([first, *again])) == (201, 201, [201, 401, 401])
    granted = [f"account-{number}" for number, (status, _) in enumerate(answers) if status == 201]
    assert sorted(Device.unscoped.values_list("account__account_id", flat=True)) == granted
    assert SessionToken.unscoped.count() == 3


@pytest.mark.postgresql
def test_the_assertion_of_a_suspended_account_is_not_used_up(
    nagra: HeadEnd, sign_on_with_token: None
) -> None:
    account = Account(tenant_id="nagra", account_id="suspended", status=AccountStatus.SUSPENDED)
    account.save()
    requests = [presentation(nagra, name, jti=name) for name in ("a", "suspended", "c")]
    answers = answers_to(requests)
    assert statuses(answers) == [201, 403, 201]
    assert answers[1][1]["reason"] == "account_suspended"
    assert sorted(SessionToken.unscoped.values_list("jti", flat=True)) == ["a", "c"]
    Account.unscoped.filter(pk=account.pk).update(status=AccountStatus.ACTIVE)
    assert statuses(answers_to([requests[1]])) == [201]


# Refreshing


@pytest.mark.postgresql
def test_a_refresh_token_that_is_presented_ten_times_has_one_successor(
    app: ClientApp, nagra: HeadEnd
) -> None:
    app.sign_on()
    answers = answers_to([rotation(nagra, app.tokens["refresh_token"])] * 10)
    assert statuses(answers) == [200] * 10
    (successor,) = {body["refresh_token"] for _, body in answers}
    assert len({body["access_token"] for _, body in answers}) == 10
    device = Device.unscoped.get()
    assert (device.generation, [generation for generation, _ in device.used]) == (1, [0])
    assert app.refresh(successor).status_code == 200
    assert get_events() == []


@pytest.mark.postgresql
def test_each_refresh_of_a_batch_gets_its_own_sign_on(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    apps = []
    for number in range(8):
        app = ClientApp((nagra, sunrise)[number % 2])
        assert app.sign_on(f"account-{number % 6}").status_code == 201
        for _ in range(number % 3):
            assert app.refresh().status_code == 200
        apps.append(app)
    answers = answers_to([rotation(app.head_end, app.tokens["refresh_token"]) for app in apps])
    assert statuses(answers) == [200] * 8
    for number, (app, (_, body)) in enumerate(zip(apps, answers, strict=True)):
        for name in ("access_token", "refresh_token"):
            before, after = decode_claims(app.tokens[name]), decode_claims(body[name])
            for member in ("tenantId", "accountId", "deviceId"):
                assert after[member] == before[member]
        sid = decode_claims(body["access_token"])["sid"]
        assert sid == decode_claims(app.tokens["access_token"])["sid"]
        assert decode_claims(body["refresh_token"])["jti"] == f"{sid}.{number % 3 + 1}"
        assert body["client_id"] == app.tokens["client_id"]


# Changes of a tenant


@pytest.mark.postgresql
@pytest.mark.parametrize("path", [REDEEM, REFRESH])
def test_a_batch_with_a_changed_tenant_uses_its_new_settings(
    nagra: HeadEnd, sunrise: HeadEnd, path: str
) -> None:
    apps = [ClientApp(head_end) for head_end in (nagra, sunrise, nagra, sunrise)]
    requests = []
    for app in apps:
        app.sign_on()
        if path == REFRESH:
            requests.append(rotation(app.head_end, app.tokens["refresh_token"]))
        else:
            requests.append(redemption(app.head_end, app.session_token()))
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answers = answers_to(requests)
    assert set(statuses(answers)) <= {200, 201}
    assert [body["expires_in"] for _, body in answers] == [77, 3600, 77, 3600]
    assert get_events() == []


# Other transactions


class Other:
    """Another session of PostgreSQL with a transaction, and a third one that observes locks."""

    def __init__(self, pg: psycopg.Connection[Any], watcher: psycopg.Connection[Any]) -> None:
        self.pg, self._watcher = pg, watcher

    def execute(self, statement: str, *params: Any) -> list[Any]:
        done = self.pg.execute(statement, params)
        return [row[0] for row in done.fetchall()] if done.description else []

    def waiting(self) -> int:
        """Return the number of sessions that wait for a lock."""
        row = self._watcher.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def other(db: None) -> Iterator[Other]:
    with (
        psycopg.connect(database_url()) as pg,
        psycopg.connect(database_url(), autocommit=True) as watcher,
    ):
        yield Other(pg, watcher)
        pg.rollback()


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
    app: ClientApp, other: Other, kind: str, statement: str, refusal: tuple[int, str]
) -> None:
    requests = [*requests_of(app, kind, ["a", "b", "revoked", "d"]).values()]

    async def during(_: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the revocation")
        other.pg.commit()

    other.execute(statement, "revoked")
    answers = answers_to(requests, during)
    refused = answers.pop(2)
    assert (refused[0], refused[1]["reason"]) == refusal
    assert set(statuses(answers)) == {200 if kind == REFRESH else 201}
    if kind != REFRESH:
        spent = [is_redeemed(request.body["parameters"][0]["value"]) for request in requests]
        assert spent == [True, True, False, True]
    assert get_events() == []


@pytest.mark.postgresql
@pytest.mark.parametrize("kind", [REDEEM, REFRESH])
def test_a_locked_row_fails_only_its_own_request(
    app: ClientApp, other: Other, kind: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AGS_DATABASE_POOLER = "none"
    monkeypatch.setitem(postgresql.LANE_TIMEOUTS, "lock_timeout", 50)
    monkeypatch.setitem(TIMEOUTS, "statement_timeout", 1000 * PATIENCE)
    app.sign_on("locked")
    requests = [*requests_of(app, kind, ["a", "b", "locked", "d"]).values()]
    table = "ags_sessions_account" if kind == REDEEM else "ags_sessions_device"
    account = f"{'id' if kind == REDEEM else 'account_id'} = (SELECT max(id) FROM ags_sessions_account"
    other.execute(f"SELECT id FROM {table} WHERE {account} WHERE account_id = %s) FOR UPDATE", "locked")
    answers = answers_to(requests)
    other.pg.rollback()
    locked = answers.pop(2)
    assert (locked[0], locked[1]["reason"]) == (503, "unavailable")
    assert set(statuses(answers)) == {200 if kind == REFRESH else 201}
    assert statuses(answers_to(requests[2:3])) == [200 if kind == REFRESH else 201], "nothing was used up"
    assert get_events() == []


@pytest.mark.postgresql
def test_a_client_that_disconnects_does_not_affect_its_batch(
    app: ClientApp, nagra: HeadEnd, other: Other
) -> None:
    tokens = [app.session_token(account) for account in ("a", "gone", "c")]

    async def during(posted: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the row")
        posted[1].cancel()
        await asyncio.wait([posted[1]])
        assert posted[1].cancelled()
        other.pg.rollback()

    other.execute("SELECT id FROM ags_sessions_sessiontoken ORDER BY id LIMIT 1 FOR UPDATE")
    answers = answers_to([redemption(nagra, token) for token in tokens], during)
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
def test_a_batch_locks_rows_in_order(app: ClientApp, other: Other, kind: str, rows: str) -> None:
    """So that concurrent batches cannot deadlock."""
    requests = requests_of(app, kind, [f"account-{number}" for number in (3, 0, 5, 2, 4, 1)])
    in_order = [*requests] if kind == REDEEM else sorted(requests)

    async def during(_: list[Posted]) -> None:
        await wait_until_async(other.waiting, "nothing waits for the row")
        assert len(other.execute(f"{rows} OFFSET 1 FOR UPDATE NOWAIT")) == 5
        other.pg.rollback()

    other.execute(f"{rows} LIMIT 1 FOR UPDATE")
    answers = answers_to([requests[client_id] for client_id in in_order[::-1]], during)
    assert set(statuses(answers)) == {200 if kind == REFRESH else 201}


@pytest.mark.postgresql
@pytest.mark.usefixtures("_plans_of_large_tables")
@pytest.mark.parametrize("kind", [REDEEM, REFRESH])
def test_processes_with_the_same_rows_do_not_deadlock(
    app: ClientApp, nagra: HeadEnd, other: Other, kind: str
) -> None:
    """A third transaction holds a row in the middle until both batches wait."""
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    execute: Any
    rows: list[Any]
    if kind == REDEEM:
        execute, service = redeem._redeem, tenant.services[SERVICE]
        tokens = [app.session_token(f"account-{number}") for number in range(7)]
        rows = [
            redeem._Redemption(tenant, service, CORRELATION_ID, token_hashes(token), NewDevice({}))
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


# On any database


def test_many_concurrent_requests_are_all_answered(nagra: HeadEnd) -> None:
    limit_devices(3)
    set_grace_period_of_a_minute()

    async def post_all(requests: Sequence[Request]) -> Answers:
        return await asyncio.gather(
            *[post_json(request.path, request.body, request.headers) for request in requests]
        )

    answers: list[Answers] = []
    redemptions: list[Request] = []

    async def test() -> None:
        async with open_application():
            assertions = [nagra.token(OpfAccountId=f"account-{number % 5}") for number in range(20)]
            bodies = [
                {"parameters": [{"name": "OperatorAuthToken", "value": assertion}]}
                for assertion in assertions
            ]
            issued = await post_all(
                [Request("/ags/getSessionToken", body, nagra.headers()) for body in bodies]
            )
            redemptions.extend(redemption(nagra, body["sessionToken"]) for _, body in issued)
            signed_on = await post_all(redemptions)
            rotations = [
                rotation(nagra, body["refresh_token"]) for status, body in signed_on if status == 201
            ]
            refreshed = await post_all([*rotations, *redemptions, *rotations])
            answers.extend([issued, signed_on, refreshed])

    run_in_event_loop(test())
    issued, signed_on, refreshed = answers
    assert statuses(issued) == [200] * 20
    assert Counter(statuses(signed_on)) == {201: 15, 403: 5}
    again = {201: 401, 403: 403}
    assert statuses(refreshed) == [200] * 15 + [again[status] for status, _ in signed_on] + [200] * 15
    granted = [body["client_id"] for status, body in signed_on if status == 201]
    assert [body["client_id"] for status, body in refreshed if status == 200] == granted * 2
    assert sorted(Device.unscoped.values_list("client_id", "generation")) == [
        (client_id, 1) for client_id in sorted(granted)
    ]
    for request, (status, _) in zip(redemptions, signed_on, strict=True):
        assert is_redeemed(request.body["parameters"][0]["value"]) == (status == 201)
    assert [times for _, _, times in get_events()] == [1] * 15


@pytest.mark.postgresql
def test_one_account_of_each_choice_in_a_batch_is_signed_on(
    app: ClientApp, nagra: HeadEnd, trial: Service
) -> None:
    def choose_between(accounts: str) -> list[str]:
        return [account["userAccountToken"] for account in app.sign_on_directly(accounts).json()["accounts"]]

    first, second = choose_between("a-1,a-2"), choose_between("b-1,b-2")
    Account(tenant_id="nagra", account_id="a-1", status=AccountStatus.SUSPENDED).save()
    Account(tenant_id="nagra", account_id="b-2", status=AccountStatus.ACTIVE).save()
    headers = nagra.headers(x_auth_service_id=TRIAL)
    tokens = [first[0], first[1], second[1], second[1]]
    answers = answers_to([Request(CHOOSE, {}, {**headers, "user-token": token}) for token in tokens])
    assert statuses(answers[:2]) == [401, 201], "the active account has used up the choice"
    assert answers[1][1]["accountId"] == "a-2"
    assert sorted(statuses(answers[2:])) == [201, 401]
    accounts = Device.unscoped.values_list("account__account_id", flat=True)
    assert sorted(accounts) == ["a-2", "b-2"]


def test_without_a_server_requests_share_a_connection_but_no_transaction(nagra: HeadEnd) -> None:
    app = ClientApp(nagra)
    tokens = [app.session_token(f"account-{number}") for number in range(8)]
    members = [{}, {"clientId": "0" * 32}] * 4
    requests = [redemption(nagra, token, **device) for token, device in zip(tokens, members, strict=True)]

    async def test() -> None:
        answers = await asyncio.gather(
            *[post_json(request.path, request.body, request.headers) for request in requests]
        )
        await sync_to_async(connections.close_all)()
        assert statuses(answers) == [201, 403] * 4

    run_in_event_loop(test())
    assert [is_redeemed(token) for token in tokens] == [True, False] * 4
    assert Device.unscoped.count() == 4
