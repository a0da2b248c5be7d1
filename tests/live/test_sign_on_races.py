"""Races of client apps through two server processes: one wins, and nobody is harmed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from django.db import connection

from ags.sessions.models import Account, Device, SecurityEvent, SessionToken
from ags.sessions.services.refresh import MAX_USED
from tenants.models import Tenant
from tests.conftest import ClientApp, HeadEnd, platform
from tests.live.conftest import warm
from tests.live.server import ServerProcess
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

Servers = tuple[ServerProcess, ServerProcess]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _no_trouble_in_the_logs(two_servers: Servers) -> Iterator[None]:
    before = [troubles(server) for server in two_servers]
    deadlocks = deadlocks_so_far()
    yield
    assert [troubles(server) for server in two_servers] == before
    assert deadlocks_so_far() == deadlocks


def troubles(server: ServerProcess) -> int:
    """Return how many errors the server has logged, but for a database that a test put back."""
    return server.log.count('"ERROR"') - server.log.count('"database_behind"')


def deadlocks_so_far() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        (number,) = cursor.fetchone()
    return int(number)


LONGEST_GRACE = 60
"""Seconds. Within it even a slow machine has all clients answered that refresh at once."""


def change(head_end: HeadEnd, **fields: Any) -> None:
    """Change the tenant, before the servers have seen it."""
    tenant = Tenant.objects.get(pk=head_end.tenant_id)
    for name, value in fields.items():
        setattr(tenant, name, value)
    tenant.save()


def race(
    servers: Servers, head_end: HeadEnd, clients: int, rounds: list[T], run: Callable[[ClientApp, T], Any]
) -> Any:
    """Let so many clients, half of them at each server, do the same in each round, all at once.

    Return what each round brought: the answers of all clients.
    """
    ready = threading.Barrier(clients)

    def go(server: ServerProcess) -> list[Any]:
        app = ClientApp(replace(head_end, client=server.client()))  # type: ignore[arg-type]
        answers = []
        for one in rounds:
            ready.wait(PATIENCE)
            answers.append(run(app, one))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        seen = list(pool.map(go, servers * (clients // 2)))
    return list(zip(*seen, strict=True))


def warm_both(servers: Servers, head_end: HeadEnd) -> HeadEnd:
    """Let both servers see the tenant; return the head-end at the first."""
    first, _ = (warm(server, head_end) for server in servers)
    return first


def statuses(answers: Any) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def devices(head_end: HeadEnd) -> list[Device]:
    return list(Device.objects.for_tenant(head_end.tenant_id).order_by("pk"))


# Redeeming


@pytest.mark.timeout(5 * PATIENCE)
@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.full)])
def test_of_64_clients_that_redeem_one_token_one_is_signed_on_each_time(
    two_servers: Servers, nagra: HeadEnd, times: int
) -> None:
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    tokens = [app.session_token(f"account-{number % 20}") for number in range(times)]
    rounds = race(two_servers, nagra, 64, tokens, lambda app, token: app.redeem(token))
    assert len(rounds) == times
    for answers in rounds:
        assert statuses(answers) == {201: 1, 401: 63}
        assert {answer.json()["reason"] for answer in answers if answer.status_code == 401} == {
            "not_authenticated"
        }
    assert len(devices(nagra)) == times
    redeemed = SessionToken.objects.for_tenant(nagra.tenant_id).filter(redeemed_at__isnull=False)
    assert redeemed.count() == times
    events = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert Counter(events.values_list("kind", "times")) == {("session_token_reused", 63): times}


def test_of_16_clients_that_come_back_with_one_token_one_is_signed_on(
    two_servers: Servers, nagra: HeadEnd
) -> None:
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    tokens = [app.session_token() for _ in range(20)]
    client_id = app.tokens["client_id"]
    rounds = race(two_servers, nagra, 16, tokens, lambda app, token: app.redeem(token, clientId=client_id))
    for answers in rounds:
        assert statuses(answers) == {201: 1, 401: 15}
    (device,) = devices(nagra)
    (winner,) = [answer for answer in rounds[-1] if answer.status_code == 201]
    assert app.refresh(winner.json()["refresh_token"]).status_code == 200
    assert device.ended_at is None


def test_of_sign_ons_of_one_device_with_tokens_of_their_own_the_last_one_lives(
    two_servers: Servers, nagra: HeadEnd
) -> None:
    """Nothing is refused and nobody waits for nobody in a circle; one sign-on is left."""
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    client_id = app.sign_on().json()["client_id"]
    tokens = [[app.session_token() for _ in range(8)] for _ in range(20)]

    def take(app: ClientApp, mine: list[str]) -> Any:
        return app.redeem(mine.pop(), clientId=client_id)

    for answers in race(two_servers, nagra, 8, tokens, take):
        assert statuses(answers) == {201: 8}
    last = [app.refresh(answer.json()["refresh_token"]).status_code for answer in answers]
    assert Counter(last) == {200: 1, 401: 7}
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()


@pytest.mark.parametrize("known", [False, True], ids=["new accounts", "known accounts"])
@pytest.mark.parametrize("free", [1, 3])
def test_of_first_sign_ons_that_race_for_the_last_places_of_a_limit_as_many_win(
    two_servers: Servers, nagra: HeadEnd, free: int, known: bool
) -> None:
    """Also where the account is new, so that nobody finds a row to wait for."""
    change(nagra, device_limit=free)
    here = warm_both(two_servers, nagra)
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
    for answers in rounds:
        assert statuses(answer for _, answer in answers) == {201: free, 403: clients - free}
        assert {answer.json().get("code") for _, answer in answers} == {None, 20007}
    assert len(devices(nagra)) == free * len(accounts)
    change(nagra, device_limit=None)
    losers = [token for answers in rounds for token, answer in answers if answer.status_code == 403]
    wait_until(lambda: app.redeem(losers[0]).status_code == 201, "its token was spent by the refusal")
    assert statuses(app.redeem(token) for token in losers[1:]) == {201: len(losers) - 1}


# Refreshing


def test_16_clients_that_refresh_with_one_token_are_one_family_and_all_go_on(
    two_servers: Servers, nagra: HeadEnd
) -> None:
    change(nagra, refresh_grace=LONGEST_GRACE)
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    current = [app.tokens["refresh_token"]]
    turn = threading.Barrier(16)
    generations = 12
    assert generations <= MAX_USED

    def refresh(app: ClientApp, _: int) -> Any:
        answer = app.refresh(current[0])
        if turn.wait(PATIENCE) == 0 and answer.status_code == 200:
            current[0] = answer.json()["refresh_token"]
        turn.wait(PATIENCE)
        return answer

    for number, answers in enumerate(race(two_servers, nagra, 16, list(range(generations)), refresh), 1):
        assert statuses(answers) == {200: 16}, f"round {number}"
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1, "one successor for all"
        assert len({answer.json()["access_token"] for answer in answers}) == 16
    (device,) = devices(nagra)
    assert (device.generation, device.ended_at) == (generations, None)
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()
    resource_server = replace(platform(nagra.tenant_id), client=here.client)
    wait_until(lambda: resource_server.introspect("x").status_code == 200, "the resource server is not known")
    assert all(resource_server.sees(answer.json()["access_token"]) for answer in answers), "all are signed on"


def test_clients_that_each_go_on_by_themselves_stay_signed_on(two_servers: Servers, nagra: HeadEnd) -> None:
    """Four threads of one app refresh five times, each with what it was given last."""
    change(nagra, refresh_grace=LONGEST_GRACE)
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    first = app.tokens["refresh_token"]
    own = threading.local()

    def refresh(app: ClientApp, _: int) -> Any:
        answer = app.refresh(getattr(own, "token", first))
        own.token = answer.json().get("refresh_token", "")
        return answer

    for answers in race(two_servers, nagra, 4, list(range(4)), refresh):
        assert statuses(answers) == {200: 4}
    assert devices(nagra)[0].ended_at is None


def test_copies_that_find_the_database_behind_at_once_all_go_on(two_servers: Servers, nagra: HeadEnd) -> None:
    """Four clients have a token that the database has lost, four have a newer one."""
    change(nagra, refresh_grace=60)
    here = warm_both(two_servers, nagra)
    rounds = []
    for _ in range(20):
        app = ClientApp(here)
        client_id = app.sign_on().json()["client_id"]
        device = Device.objects.for_tenant(nagra.tenant_id).filter(client_id=client_id)
        row = device.values().get()
        tokens = [app.refresh().json()["refresh_token"] for _ in range(3)]
        device.update(**row)
        rounds.append([tokens[0], tokens[2]] * 4)
    for answers in race(two_servers, nagra, 8, rounds, lambda app, mine: app.refresh(mine.pop())):
        assert statuses(answers) == {200: 8}
    assert {(one.generation, one.ended_at) for one in devices(nagra)} == {(4, None)}
    assert not SecurityEvent.objects.for_tenant(nagra.tenant_id).exists()
    assert any('"database_behind"' in server.log for server in two_servers)


@pytest.mark.parametrize("grace", [0, LONGEST_GRACE])
def test_after_the_grace_a_race_with_a_used_token_ends_the_family_once(
    two_servers: Servers, nagra: HeadEnd, grace: int
) -> None:
    change(nagra, refresh_grace=grace)
    here = warm_both(two_servers, nagra)
    app = ClientApp(here)
    app.sign_on()
    stolen = app.tokens["refresh_token"]
    assert app.refresh().status_code == 200
    if grace:
        assert app.refresh(stolen).status_code == 200, "within the grace"
        (device,) = devices(nagra)
        device.used = [[generation, at - grace] for generation, at in device.used]
        device.save()
    (answers,) = race(two_servers, nagra, 16, [stolen], lambda app, token: app.refresh(token))
    assert statuses(answers) == {401: 16}
    assert app.refresh().status_code == 401, "the honest one is signed out, too: he signs on afresh"
    (device,) = devices(nagra)
    assert device.end_reason == "refresh_token_reused"
    (event,) = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert (event.kind, event.subject) == ("refresh_token_reused", device.sign_on)
    assert 1 <= event.times <= 16
    assert app.sign_on(clientId=app.tokens["client_id"]).status_code == 201


def test_a_sign_out_that_races_with_refreshes_wins(two_servers: Servers, nagra: HeadEnd) -> None:
    here = warm_both(two_servers, nagra)
    apps = []
    for _ in range(25):
        app = ClientApp(here)
        app.sign_on()
        apps.append(app.tokens)

    roles = iter(range(10**6))
    own = threading.local()

    def run(app: ClientApp, tokens: dict[str, Any]) -> Any:
        if not hasattr(own, "signs_out"):
            own.signs_out = next(roles) % 4 == 0
        return app.sign_out(tokens["access_token"]) if own.signs_out else app.refresh(tokens["refresh_token"])

    for tokens, answers in zip(apps, race(two_servers, nagra, 8, apps, run), strict=True):
        assert set(statuses(answers)) <= {200, 401}
        refreshed = [one.json()["refresh_token"] for one in answers if "refresh_token" in one.json()]
        for token in (tokens["refresh_token"], *refreshed):
            assert ClientApp(here).refresh(token).status_code == 401
    assert {device.end_reason for device in devices(nagra)} == {"signed_out"}
