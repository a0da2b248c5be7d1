"""Redemptions in batches: each request gets its own result."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ags.sessions.models import Account, AccountStatus, Device, SecurityEvent
from ags.sessions.services import account_choice, redeem, security_events
from ags.sessions.tokens.opaque import new_token
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.batches import (
    CHOOSE,
    REDEEM,
    Answers,
    OtherTransaction,
    Request,
    execute_together,
    get_statuses,
    is_redeemed,
    limit_devices,
    redemption,
    run_batch,
)
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.sign_ons import decode_claims, get_events
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("long_time_limits", "stale_snapshots"),
]

NOT_ACCEPTED_MESSAGE = "The credentials are invalid or have expired."


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
    answers = run_batch(requests)
    assert set(get_statuses(answers)) == {201}
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
    answers = run_batch([redemption(nagra, same)] * times + [redemption(nagra, other)])
    assert sorted(get_statuses(answers[:-1])) == [201] + [401] * (times - 1)
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
    answers = run_batch(requests)
    assert get_statuses(answers)[::order] == [401, 401, 201]
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
    answers = run_batch([redemption(nagra, token) for token in tokens])
    granted = limit - present
    assert Counter(get_statuses(answers[:-1])) == {201: granted, 403: limit + 3 - granted}
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
    answers = run_batch(requests)
    assert get_statuses(answers) == [201, 403, 201, 201]
    assert answers[1][1]["code"] == 20002
    assert [is_redeemed(token) for token in tokens] == [True, False, True, True]
    assert Device.unscoped.filter(account=suspended).values("sign_on").first() == before
    assert Device.unscoped.count() == (4 if is_known else 3)
    Account.unscoped.filter(pk=suspended.pk).update(status=AccountStatus.ACTIVE)
    assert get_statuses(run_batch([requests[1]])) == [201]
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
    answers = run_batch(requests)
    assert get_statuses(answers) == [201] * 4
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
        states, kind = redeem._redeemer.states, "session_token_reused"
        spent = [redemption(nagra, app.session_token(account)) for account in accounts]
        unknown = redemption(nagra, new_token()[0])
    else:
        states, kind = account_choice._redeemer.states, "user_account_token_reused"
        headers = nagra.headers(x_auth_service_id=TRIAL)
        tokens = [app.request_choices(f"{account},{account[0]}-2")[0] for account in accounts]
        spent = [Request(CHOOSE, {}, {**headers, "user-token": token}) for token in tokens]
        unknown = Request(CHOOSE, {}, {**headers, "user-token": f"{new_token()[0]}.0"})
    assert get_statuses(run_batch(spent)) == [201] * 3
    granted = redemption(nagra, app.session_token("another"))
    requests = [*spent, unknown, *spent[::-1], unknown, spent[1]]
    answers: Answers = []

    async def test() -> None:
        async with open_application():
            reported = execute_together(security_events._events, 7)
            explained = execute_together(states, len(requests))
            *first, last = [post_json(request.path, request.body, request.headers) for request in requests]
            posted = [asyncio.create_task(response) for response in first]
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
    assert get_statuses(answers) == [401] * len(requests)
    assert {(body["code"], body["message"]) for _, body in answers} == {(40100, NOT_ACCEPTED_MESSAGE)}
    assert sorted(get_events()) == [(kind, "a-1", 2), (kind, "b-1", 3), (kind, "c-1", 2)]


@pytest.mark.postgresql
def test_a_blocked_security_event_does_not_block_sign_ons(
    app: ClientApp, nagra: HeadEnd, other: OtherTransaction
) -> None:
    spent = redemption(nagra, app.session_token())
    assert get_statuses(run_batch([spent, spent])) == [201, 401]
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
    assert get_statuses(answers) == [201, 401]
    assert get_events() == [("session_token_reused", "account-1", 2)]


@pytest.mark.postgresql
def test_processes_that_record_the_same_events_do_not_deadlock(
    nagra: HeadEnd, other: OtherTransaction
) -> None:
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
