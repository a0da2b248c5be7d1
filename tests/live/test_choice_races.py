"""Races for one choice of accounts on two servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from ags.sessions.models import AccountChoice, SecurityEvent, SessionToken
from ags.sessions.services.account_choice import LIFETIME
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import add_trial_service
from tests.support.races import (
    count_deadlocks,
    count_statuses,
    get_devices,
    race,
    update_tenant,
    wait_until_served_by_both,
)
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.postgresql

Servers = tuple[ServerProcess, ServerProcess]


@pytest.fixture(autouse=True)
def _check_for_errors_and_deadlocks(two_with_dummy: Servers) -> Iterator[None]:
    before = [server.log.count("ERROR") for server in two_with_dummy]
    deadlocks = count_deadlocks()
    yield
    assert [server.log.count("ERROR") for server in two_with_dummy] == before
    assert count_deadlocks() == deadlocks


@pytest.fixture
def app(two_with_dummy: Servers, nagra: HeadEnd) -> ClientApp:
    """An app of nagra at the first server; both servers serve its trial service."""
    add_trial_service(nagra.tenant_id)
    return ClientApp(wait_until_served_by_both(two_with_dummy, nagra))


@pytest.mark.timeout(5 * PATIENCE)
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.full)])
def test_64_clients_use_the_same_user_account_token(
    two_with_dummy: Servers, nagra: HeadEnd, app: ClientApp, times: int
) -> None:
    tokens = [app.request_choices(f"a-{number % 20},b-{number % 20}")[number % 2] for number in range(times)]
    rounds = race(two_with_dummy, nagra, 64, tokens, lambda app, token: app.choose_account(token))
    assert len(rounds) == times
    for responses in rounds:
        assert count_statuses(responses) == {201: 1, 401: 63}
        reasons = {response.json()["reason"] for response in responses if response.status_code == 401}
        assert reasons == {"not_authenticated"}
    assert len(get_devices(nagra)) == times
    events = SecurityEvent.objects.for_tenant(nagra.tenant_id)
    assert Counter(events.values_list("kind", "times")) == {("user_account_token_reused", 63): times}
    assert LIFETIME > 300, "a choice may have expired"


def test_16_clients_choose_different_accounts_of_one_choice(
    two_with_dummy: Servers, nagra: HeadEnd, app: ClientApp
) -> None:
    names = ",".join(f"account-{number}" for number in range(16))
    choices = [app.request_choices(names) for _ in range(20)]
    rounds = race(two_with_dummy, nagra, 16, choices, lambda app, tokens: app.choose_account(tokens.pop()))
    for responses in rounds:
        assert count_statuses(responses) == {201: 1, 401: 15}
    assert len(get_devices(nagra)) == 20
    assert not AccountChoice.objects.for_tenant(nagra.tenant_id).filter(used_at=None).exists()


@pytest.mark.parametrize("limit", [1, 3])
def test_concurrent_sign_ons_and_choices_respect_the_device_limit(
    two_with_dummy: Servers, nagra: HeadEnd, limit: int
) -> None:
    update_tenant(nagra, device_limit=limit)
    add_trial_service(nagra.tenant_id)
    app = ClientApp(wait_until_served_by_both(two_with_dummy, nagra))
    accounts = [f"account-{number}" for number in range(10)]
    tokens = {account: [app.request_choices(f"{account},other")[0] for _ in range(4)] for account in accounts}
    roles = iter(range(10**6))

    def run(app: ClientApp, account: str) -> object:
        return app.choose_account(tokens[account].pop()) if next(roles) % 2 else app.sign_on_directly(account)

    for responses in race(two_with_dummy, nagra, 8, accounts, run):
        assert count_statuses(responses) == {201: limit, 403: 8 - limit}
        assert {response.json().get("code") for response in responses} == {None, 20007}
    assert len(get_devices(nagra)) == limit * len(accounts)
    used = AccountChoice.objects.for_tenant(nagra.tenant_id).exclude(used_at=None).count()
    kept = SessionToken.objects.for_tenant(nagra.tenant_id).exclude(redeemed_at=None).count()
    assert used + kept == len(get_devices(nagra)), "an error has used up a choice"
