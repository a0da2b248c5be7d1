"""Races of client apps on two servers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from ags.sessions.services.refresh import MAX_USED
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import Servers
from tests.support.operators import create_platform
from tests.support.races import (
    count_deadlocks,
    count_statuses,
    get_devices,
    race,
    update_tenant,
    wait_until_served_by_both,
)
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql


@pytest.fixture(autouse=True)
def _check_for_errors_and_deadlocks(two_servers: Servers) -> Iterator[None]:
    before = [count_errors(server) for server in two_servers]
    deadlocks = count_deadlocks()
    yield
    assert [count_errors(server) for server in two_servers] == before
    assert count_deadlocks() == deadlocks


def count_errors(server: ServerProcess) -> int:
    """Return the number of logged errors, except those of a database that a test has reset."""
    return server.log.count('"ERROR"') - server.log.count('"database_behind"')


LONGEST_GRACE = 60
"""Seconds: long enough for simultaneous refreshes of all clients on a slow machine."""


# Redeeming


@pytest.mark.timeout(5 * PATIENCE)
@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.full)])
def test_64_clients_redeem_the_same_token(two_servers: Servers, nagra: HeadEnd, times: int) -> None:
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    tokens = [app.session_token(f"account-{number % 20}") for number in range(times)]
    rounds = race(two_servers, nagra, 64, tokens, lambda app, token: app.redeem(token))
    assert len(rounds) == times
    for responses in rounds:
        assert count_statuses(responses) == {201: 1, 401: 63}
        assert {response.json()["reason"] for response in responses if response.status_code == 401} == {
            "not_authenticated"
        }
    assert len(get_devices(nagra)) == times
    redeemed = SessionToken.objects.for_tenant(nagra.tenant_id).filter(redeemed_at__isnull=False)
    assert redeemed.count() == times
    events = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert Counter(events.values_list("kind", "times")) == {("session_token_reused", 63): times}


def test_16_clients_of_a_known_device_redeem_the_same_token(two_servers: Servers, nagra: HeadEnd) -> None:
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    tokens = [app.session_token() for _ in range(20)]
    client_id = app.tokens["client_id"]
    rounds = race(two_servers, nagra, 16, tokens, lambda app, token: app.redeem(token, clientId=client_id))
    for responses in rounds:
        assert count_statuses(responses) == {201: 1, 401: 15}
    (device,) = get_devices(nagra)
    (winner,) = [response for response in rounds[-1] if response.status_code == 201]
    assert app.refresh(winner.json()["refresh_token"]).status_code == 200
    assert device.ended_at is None


def test_concurrent_sign_ons_of_one_device_leave_one_sign_on(two_servers: Servers, nagra: HeadEnd) -> None:
    """No errors and no deadlocks; one sign-on is left."""
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    client_id = app.sign_on().json()["client_id"]
    tokens = [[app.session_token() for _ in range(8)] for _ in range(20)]

    def redeem_next(app: ClientApp, own_tokens: list[str]) -> Any:
        return app.redeem(own_tokens.pop(), clientId=client_id)

    for responses in race(two_servers, nagra, 8, tokens, redeem_next):
        assert count_statuses(responses) == {201: 8}
    last = [app.refresh(response.json()["refresh_token"]).status_code for response in responses]
    assert Counter(last) == {200: 1, 401: 7}
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()


@pytest.mark.parametrize("known", [False, True], ids=["new accounts", "known accounts"])
@pytest.mark.parametrize("limit", [1, 3])
def test_concurrent_first_sign_ons_respect_the_device_limit(
    two_servers: Servers, nagra: HeadEnd, limit: int, known: bool
) -> None:
    """New accounts have no row that could be locked."""
    update_tenant(nagra, device_limit=limit)
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    clients = 8
    accounts = [f"account-{number}" for number in range(15)]
    if known:
        for account in accounts:
            Account(tenant_id=nagra.tenant_id, account_id=account).save()
    tokens = {account: [app.session_token(account) for _ in range(clients)] for account in accounts}
    rounds = race(
        two_servers,
        nagra,
        clients,
        accounts,
        lambda app, account: (token := tokens[account].pop(), app.redeem(token)),
    )
    for responses in rounds:
        assert count_statuses(response for _, response in responses) == {201: limit, 403: clients - limit}
        assert {response.json().get("code") for _, response in responses} == {None, 20007}
    assert len(get_devices(nagra)) == limit * len(accounts)
    update_tenant(nagra, device_limit=None)
    losers = [token for responses in rounds for token, response in responses if response.status_code == 403]
    wait_until(lambda: app.redeem(losers[0]).status_code == 201, "the error has used up the token")
    assert count_statuses(app.redeem(token) for token in losers[1:]) == {201: len(losers) - 1}


# Refreshing


def test_16_clients_refresh_with_the_same_token(two_servers: Servers, nagra: HeadEnd) -> None:
    update_tenant(nagra, refresh_grace=LONGEST_GRACE)
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    current = [app.tokens["refresh_token"]]
    barrier = threading.Barrier(16)
    generations = 12
    assert generations <= MAX_USED

    def refresh(app: ClientApp, _: int) -> Any:
        response = app.refresh(current[0])
        if barrier.wait(PATIENCE) == 0 and response.status_code == 200:
            current[0] = response.json()["refresh_token"]
        barrier.wait(PATIENCE)
        return response

    for number, responses in enumerate(race(two_servers, nagra, 16, list(range(generations)), refresh), 1):
        assert count_statuses(responses) == {200: 16}, f"round {number}"
        assert len({response.json()["refresh_token"] for response in responses}) == 1, (
            "clients get different refresh tokens"
        )
        assert len({response.json()["access_token"] for response in responses}) == 16
    (device,) = get_devices(nagra)
    assert (device.generation, device.ended_at) == (generations, None)
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()
    resource_server = replace(create_platform(nagra.tenant_id), client=here.client)
    wait_until(
        lambda: resource_server.introspect("x").status_code == 200, "the resource server cannot authenticate"
    )
    assert all(resource_server.is_active(response.json()["access_token"]) for response in responses), (
        "an access token is invalid"
    )


def test_clients_that_refresh_independently_stay_signed_on(two_servers: Servers, nagra: HeadEnd) -> None:
    """Four threads of one app refresh, each with its local latest token."""
    update_tenant(nagra, refresh_grace=LONGEST_GRACE)
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    first = app.tokens["refresh_token"]
    local = threading.local()

    def refresh(app: ClientApp, _: int) -> Any:
        response = app.refresh(getattr(local, "token", first))
        local.token = response.json().get("refresh_token", "")
        return response

    for responses in race(two_servers, nagra, 4, list(range(4)), refresh):
        assert count_statuses(responses) == {200: 4}
    assert get_devices(nagra)[0].ended_at is None


def test_concurrent_refreshes_with_tokens_newer_than_the_database(
    two_servers: Servers, nagra: HeadEnd
) -> None:
    """Half of the clients have a token that the database has lost, the others have a newer one."""
    update_tenant(nagra, refresh_grace=60)
    here = wait_until_served_by_both(two_servers, nagra)
    rounds = []
    for _ in range(20):
        app = ClientApp(here)
        client_id = app.sign_on().json()["client_id"]
        device = Device.objects.for_tenant(nagra.tenant_id).filter(client_id=client_id)
        row = device.values().get()
        tokens = [app.refresh().json()["refresh_token"] for _ in range(3)]
        device.update(**row)
        rounds.append([tokens[0], tokens[2]] * 4)
    for responses in race(
        two_servers, nagra, 8, rounds, lambda app, own_tokens: app.refresh(own_tokens.pop())
    ):
        assert count_statuses(responses) == {200: 8}
    assert {(device.generation, device.ended_at) for device in get_devices(nagra)} == {(4, None)}
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()
    assert any('"database_behind"' in server.log for server in two_servers)


@pytest.mark.parametrize("grace", [0, LONGEST_GRACE])
def test_concurrent_reuse_after_the_grace_period_ends_the_sign_on_once(
    two_servers: Servers, nagra: HeadEnd, grace: int
) -> None:
    update_tenant(nagra, refresh_grace=grace)
    here = wait_until_served_by_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    stolen = app.tokens["refresh_token"]
    assert app.refresh().status_code == 200
    if grace:
        assert app.refresh(stolen).status_code == 200, "within the grace"
        (device,) = get_devices(nagra)
        device.used = [[generation, at - grace] for generation, at in device.used]
        device.save()
    (responses,) = race(two_servers, nagra, 16, [stolen], lambda app, token: app.refresh(token))
    assert count_statuses(responses) == {401: 16}
    assert app.refresh().status_code == 401, "the subscriber must sign on again, too"
    (device,) = get_devices(nagra)
    assert device.end_reason == "refresh_token_reused"
    (event,) = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert (event.kind, event.subject) == ("refresh_token_reused", device.sign_on)
    assert 1 <= event.times <= 16
    assert app.sign_on(clientId=app.tokens["client_id"]).status_code == 201


def test_sign_out_wins_against_concurrent_refreshes(two_servers: Servers, nagra: HeadEnd) -> None:
    here = wait_until_served_by_both(two_servers, nagra)
    apps = []
    for _ in range(25):
        app = ClientApp(here)
        app.sign_on()
        apps.append(app.tokens)

    roles = iter(range(10**6))
    local = threading.local()

    def run(app: ClientApp, tokens: dict[str, Any]) -> Any:
        if not hasattr(local, "signs_out"):
            local.signs_out = next(roles) % 4 == 0
        return (
            app.sign_out(tokens["access_token"]) if local.signs_out else app.refresh(tokens["refresh_token"])
        )

    for tokens, responses in zip(apps, race(two_servers, nagra, 8, apps, run), strict=True):
        assert set(count_statuses(responses)) <= {200, 401}
        refreshed = [r.json()["refresh_token"] for r in responses if "refresh_token" in r.json()]
        for token in (tokens["refresh_token"], *refreshed):
            assert ClientApp(here).refresh(token).status_code == 401
    assert {device.end_reason for device in get_devices(nagra)} == {"signed_out"}


# Signing out


def test_8_sign_outs_of_one_sign_on_are_one_event(two_servers: Servers, nagra: HeadEnd) -> None:
    app = ClientApp(wait_until_served_by_both(two_servers, nagra))
    tokens = [app.sign_on(f"account-{number}").json()["access_token"] for number in range(10)]
    rounds = race(two_servers, nagra, 8, tokens, lambda app, token: app.sign_out(token))
    for responses in rounds:
        statuses = count_statuses(responses)
        assert statuses[200] >= 1
        assert set(statuses) <= {200, 401}
    events = Event.objects.for_tenant(nagra.tenant_id).filter(kind=Event.Kind.SIGN_ON_ENDED)
    assert sorted(events.values_list("account_id", flat=True)) == [
        f"account-{number}" for number in range(10)
    ]
