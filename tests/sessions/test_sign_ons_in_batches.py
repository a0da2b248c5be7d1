"""Direct sign-ons, refreshes and choices in batches, and batches on any database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from ags.sessions.models import Account, AccountStatus, Device, SessionToken
from providers.contract import Endpoint
from providers.operator_token.strategy import OperatorToken
from tenants.models import Service, Tenant
from tests.support.batches import (
    CHOOSE,
    REDEEM,
    SIGN_ON,
    Answers,
    Request,
    get_statuses,
    is_redeemed,
    limit_devices,
    redemption,
    rotation,
    run_batch,
)
from tests.support.clients import TRIAL, ClientApp, HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop
from tests.support.sign_ons import REFRESH_PATH as REFRESH
from tests.support.sign_ons import decode_claims, get_events, set_grace_period_of_a_minute

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("long_time_limits", "stale_snapshots"),
]


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
        answers = run_batch([presentation(nagra, f"account-{n}", jti) for n, jti in enumerate(jtis)])
    reasons = [vars(record)["reason"] for record in caplog.records if record.name == "ags.request"]
    assert Counter(reasons) == {None: 3, "replayed": 2}
    first, another, *again, without = get_statuses(answers)
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
    answers = run_batch(requests)
    assert get_statuses(answers) == [201, 403, 201]
    assert answers[1][1]["reason"] == "account_suspended"
    assert sorted(SessionToken.unscoped.values_list("jti", flat=True)) == ["a", "c"]
    Account.unscoped.filter(pk=account.pk).update(status=AccountStatus.ACTIVE)
    assert get_statuses(run_batch([requests[1]])) == [201]


# Refreshing


@pytest.mark.postgresql
def test_a_refresh_token_that_is_presented_ten_times_has_one_successor(
    app: ClientApp, nagra: HeadEnd
) -> None:
    app.sign_on()
    answers = run_batch([rotation(nagra, app.tokens["refresh_token"])] * 10)
    assert get_statuses(answers) == [200] * 10
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
    answers = run_batch([rotation(app.head_end, app.tokens["refresh_token"]) for app in apps])
    assert get_statuses(answers) == [200] * 8
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
    answers = run_batch(requests)
    assert set(get_statuses(answers)) <= {200, 201}
    assert [body["expires_in"] for _, body in answers] == [77, 3600, 77, 3600]
    assert get_events() == []


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
    assert get_statuses(issued) == [200] * 20
    assert Counter(get_statuses(signed_on)) == {201: 15, 403: 5}
    again = {201: 401, 403: 403}
    assert get_statuses(refreshed) == [200] * 15 + [again[status] for status, _ in signed_on] + [200] * 15
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
    answers = run_batch([Request(CHOOSE, {}, {**headers, "user-token": token}) for token in tokens])
    assert get_statuses(answers[:2]) == [401, 201], "the active account has used up the choice"
    assert answers[1][1]["accountId"] == "a-2"
    assert sorted(get_statuses(answers[2:])) == [201, 401]
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
        assert get_statuses(answers) == [201, 403] * 4

    run_in_event_loop(test())
    assert [is_redeemed(token) for token in tokens] == [True, False] * 4
    assert Device.unscoped.count() == 4
