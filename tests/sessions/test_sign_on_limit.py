"""The limit on the session tokens and sign-ons of an account, without Redis."""

from __future__ import annotations

import pytest

from ags.limits import memory
from ags.sessions.models import SessionToken
from tenants.models import Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.clock import StoppedClock
from tests.support.operators import add_trial_service

MAXIMUM = 3


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _limited(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    for tenant_id in ("nagra", "sunrise"):
        limit(tenant_id, MAXIMUM)
        add_trial_service(tenant_id)


def limit(tenant_id: str, maximum: int) -> None:
    tenant = Tenant.objects.get(pk=tenant_id)
    tenant.max_sign_ons_per_account = maximum
    tenant.save()
    snapshot.invalidate(tenant_id)


def grant(head_end: HeadEnd, account: str = "account-1") -> int:
    status: int = head_end.present(head_end.token(OpfAccountId=account)).status_code
    return status


def test_an_account_with_too_many_session_tokens_waits_until_the_minute_ends(
    nagra: HeadEnd, clock: StoppedClock
) -> None:
    assert grant(nagra) == 200
    clock.ahead = 20.5
    assert [grant(nagra) for _ in range(MAXIMUM)] == [200] * (MAXIMUM - 1) + [429]
    refused = nagra.present(nagra.token(), x_correlation_id="flow-1")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "40")
    assert refused.json() == {
        "code": 42903,
        "reason": "too_many_sign_ons",
        "message": "Too many sign-ons of this account in a short time. "
        "Retry-After contains the seconds to wait.",
        "correlationId": "flow-1",
    }
    assert SessionToken.objects.for_tenant("nagra").count() == MAXIMUM
    metrics = nagra.client.get("/metrics", **{"ags.operations": True}).content.decode()
    assert 'ags_limited_requests_total{limit="account"} 2.0' in metrics
    clock.ahead = 60.0
    assert grant(nagra) == 200


def test_only_the_account_of_the_tenant_is_limited(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    assert [grant(nagra) for _ in range(MAXIMUM + 1)] == [200] * MAXIMUM + [429]
    assert grant(nagra, "account-2") == 200
    assert grant(sunrise) == 200


def test_sign_ons_with_credentials_count_together_with_session_tokens(nagra: HeadEnd, app: ClientApp) -> None:
    assert grant(nagra) == 200
    assert app.sign_on_directly("account-1").status_code == 201
    assert grant(nagra) == 200
    refused = app.sign_on_directly("account-1")
    assert (refused.status_code, refused.json()["code"]) == (429, 42903)


def test_a_choice_counts_for_its_first_account(app: ClientApp) -> None:
    statuses = [app.sign_on_directly("account-1,account-2").status_code for _ in range(MAXIMUM + 1)]
    assert statuses == [300] * MAXIMUM + [429]
    assert app.sign_on_directly("account-2").status_code == 201


def test_redeeming_and_refreshing_do_not_count(nagra: HeadEnd, app: ClientApp) -> None:
    assert app.sign_on().status_code == 201
    assert app.refresh().status_code == 200
    assert [grant(nagra) for _ in range(MAXIMUM)] == [200] * (MAXIMUM - 1) + [429]


def test_what_proves_nothing_does_not_count(nagra: HeadEnd) -> None:
    forged = HeadEnd(nagra.tenant_id, nagra.kid, b"another secret of exactly 32 b..", client=nagra.client)
    assert {grant(forged) for _ in range(10)} == {401}
    token = nagra.token(jti="once")
    statuses = [nagra.present(token).status_code for _ in range(10)]
    assert statuses == [200] + [401] * 9, "a copied token locks nobody out"
    assert grant(nagra) == 200


def test_no_limit(nagra: HeadEnd) -> None:
    limit("nagra", 0)
    assert {grant(nagra) for _ in range(150)} == {200}
