"""Races for one choice of accounts through two server processes: one wins, and nobody is harmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from ags.sessions.models import AccountChoice, SecurityEvent, SessionToken
from ags.sessions.services.account_choice import LIFETIME
from tests.conftest import ClientApp, HeadEnd, add_trial
from tests.live.server import ServerProcess
from tests.live.test_sign_on_races import change, deadlocks_so_far, devices, race, statuses, warm_both
from tests.waiting import PATIENCE

pytestmark = pytest.mark.postgresql

Servers = tuple[ServerProcess, ServerProcess]


@pytest.fixture(autouse=True)
def _no_trouble_in_the_logs(two_with_dummy: Servers) -> Iterator[None]:
    before = [server.log.count("ERROR") for server in two_with_dummy]
    deadlocks = deadlocks_so_far()
    yield
    assert [server.log.count("ERROR") for server in two_with_dummy] == before
    assert deadlocks_so_far() == deadlocks


@pytest.fixture
def app(two_with_dummy: Servers, nagra: HeadEnd) -> ClientApp:
    """An app of nagra at the first server; both have seen the tenant and its trial service."""
    add_trial(nagra.tenant_id)
    return ClientApp(warm_both(two_with_dummy, nagra))


@pytest.mark.timeout(5 * PATIENCE)
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.full)])
def test_of_64_clients_that_choose_with_one_token_one_is_signed_on_each_time(
    two_with_dummy: Servers, nagra: HeadEnd, app: ClientApp, times: int
) -> None:
    tokens = [app.choices(f"a-{number % 20},b-{number % 20}")[number % 2] for number in range(times)]
    rounds = race(two_with_dummy, nagra, 64, tokens, lambda app, token: app.choose(token))
    assert len(rounds) == times
    for answers in rounds:
        assert statuses(answers) == {201: 1, 401: 63}
        told = {answer.json()["reason"] for answer in answers if answer.status_code == 401}
        assert told == {"not_authenticated"}
    assert len(devices(nagra)) == times
    events = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert Counter(events.values_list("kind", "times")) == {("user_account_token_reused", 63): times}
    assert LIFETIME > 300, "none has expired meanwhile"


def test_of_16_clients_that_choose_different_accounts_of_one_choice_one_is_signed_on(
    two_with_dummy: Servers, nagra: HeadEnd, app: ClientApp
) -> None:
    names = ",".join(f"account-{number}" for number in range(16))
    choices = [app.choices(names) for _ in range(20)]
    rounds = race(two_with_dummy, nagra, 16, choices, lambda app, tokens: app.choose(tokens.pop()))
    for answers in rounds:
        assert statuses(answers) == {201: 1, 401: 15}
    assert len(devices(nagra)) == 20
    assert not AccountChoice.objects.for_tenant(nagra.tenant_id).filter(used_at=None).exists()


@pytest.mark.parametrize("free", [1, 3])
def test_of_direct_sign_ons_and_choices_that_race_for_the_last_places_of_a_limit_as_many_win(
    two_with_dummy: Servers, nagra: HeadEnd, free: int
) -> None:
    change(nagra, device_limit=free)
    add_trial(nagra.tenant_id)
    app = ClientApp(warm_both(two_with_dummy, nagra))
    accounts = [f"account-{number}" for number in range(10)]
    tokens = {account: [app.choices(f"{account},other")[0] for _ in range(4)] for account in accounts}
    roles = iter(range(10**6))

    def run(app: ClientApp, account: str) -> object:
        return app.choose(tokens[account].pop()) if next(roles) % 2 else app.prove(account)

    for answers in race(two_with_dummy, nagra, 8, accounts, run):
        assert statuses(answers) == {201: free, 403: 8 - free}
        assert {answer.json().get("code") for answer in answers} == {None, 20007}
    assert len(devices(nagra)) == free * len(accounts)
    used = AccountChoice.objects.for_tenant(nagra.tenant_id).exclude(used_at=None).count()
    kept = SessionToken.objects.for_tenant(nagra.tenant_id).exclude(redeemed_at=None).count()
    assert used + kept == len(devices(nagra)), "who was refused has used nothing up"
