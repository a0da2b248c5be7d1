"""Revoking everything that a tenant, a service or a key gave rise to, and nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from tenants.models import Key, Service, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import add_key
from tests.support.staff import person

MODELS: dict[str, Any] = {"tenant": Tenant.objects, "service": Service.unscoped, "key": Key.unscoped}
NAMES = {
    "tenant": "tenant nagra",
    "service": "service Customer Auth Service of nagra",
    "key": "key nagra-key-1 of nagra",
}


def page_of(model: str, act: str = "revoke-issued") -> str:
    row = MODELS[model].get(**{"pk" if model == "tenant" else "tenant_id": "nagra"})
    return f"/admin/tenants/{model}/{row.pk}/{act}/"


def text(response: Any) -> str:
    return response.content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_it_asks_first_and_then_ends_all_that_was_issued(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd, app: ClientApp, model: str
) -> None:
    assert app.sign_on().status_code == 201
    waiting = nagra.present(nagra.token()).json()["sessionToken"]
    other = ClientApp(sunrise)
    assert other.sign_on().status_code == 201
    assert page_of(model) in text(admin_client.get(page_of(model, "change")))
    question = text(admin_client.get(page_of(model)))
    assert f"Revoke everything that {NAMES[model]} issued?" in question

    assert "Live session tokens: 1." in question
    assert "Live sign-ons: 1." in question
    assert app.refresh().status_code == 200

    told = text(admin_client.post(page_of(model), follow=True))
    assert f"Everything that {NAMES[model]} issued is revoked." in told
    assert app.refresh().status_code == 401
    assert app.redeem(waiting).status_code == 401
    assert other.refresh().status_code == 200
    assert app.sign_on().status_code == 201, "what it issues from now on is valid"
    assert app.refresh().status_code == 200
    change, *_ = admin_client.get(page_of(model, "history")).context["changes"]
    assert change.user == "admin"
    assert [difference.label for difference in change.differences] == ["revoked before"]


def test_a_key_takes_nothing_with_it_that_another_gave_rise_to(
    admin_client: Client, nagra: HeadEnd, app: ClientApp
) -> None:
    second = HeadEnd("nagra", "second", bytes(range(50, 90)))
    add_key(second)
    other = ClientApp(second)
    assert (app.sign_on().status_code, other.sign_on().status_code) == (201, 201)
    key = Key.unscoped.get(kid="nagra-key-1")
    admin_client.post(f"/admin/tenants/key/{key.pk}/revoke-issued/")
    assert app.refresh().status_code == 401
    assert other.refresh().status_code == 200


def test_revoking_a_key_leaves_sign_ons_alive_and_says_how_to_end_them(
    admin_client: Client, nagra: HeadEnd, app: ClientApp
) -> None:
    app.sign_on()
    question = text(admin_client.get(page_of("key", "revoke")))
    assert "Sign-ons with tokens that it signed continue" in question
    assert "Revoke everything issued" in question
    admin_client.post(page_of("key", "revoke"))
    assert app.refresh().status_code == 200

    page = text(admin_client.get(page_of("key", "change")))
    assert page_of("key") in page, "offered on the page of a revoked key, too"
    assert page_of("key", "revoke") not in page
    assert admin_client.post(page_of("key")).status_code == 302
    assert app.refresh().status_code == 401


def test_what_leaked_is_cut_off_whatever_else_is_wrong_with_the_row(
    admin_client: Client, nagra: HeadEnd, app: ClientApp
) -> None:
    now = datetime.now(UTC)
    Key.unscoped.update(not_before=now, not_after=now - timedelta(days=1))
    Service.unscoped.update(strategy="gone")
    Tenant.objects.update(name="")
    for model, rows in MODELS.items():
        assert "is revoked" in text(admin_client.post(page_of(model), follow=True))
        assert rows.get().revoked_before is not None


@pytest.mark.parametrize("group", ["support", "auditor"])
@pytest.mark.parametrize("model", MODELS)
def test_only_operator_staff_may(nagra: HeadEnd, group: str, model: str) -> None:
    browser = person(group, "nagra")
    assert page_of(model) not in text(browser.get(page_of(model, "change")))
    for method in (browser.get, browser.post):
        assert method(page_of(model)).status_code == 403
    assert MODELS[model].get().revoked_before is None
    assert person("operator staff", "nagra").post(page_of(model)).status_code == 302
