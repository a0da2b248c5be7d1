"""Staff see and change the tenants that they are assigned to, as far as their group goes, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from ags.explanations.models import ExplanationLink
from ags.operations.groups import GROUPS
from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from tenants.models import Assignment, Key, ResourceServer, Service, SigningKey, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.explanation_pages import create_explanation_link
from tests.support.operators import create_platform
from tests.support.staff import person

pytestmark = pytest.mark.once

SECRET = "a secret that is long enough for HS256"


@pytest.fixture
def both(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Two operators, each with a row of every kind: a session token that was redeemed twice, at least."""
    for head_end in (nagra, sunrise):
        token = head_end.present(head_end.token()).json()["sessionToken"]
        app = ClientApp(head_end)
        signed_on = app.redeem(token)
        assert (signed_on.status_code, app.redeem(token).status_code) == (201, 401)
        create_explanation_link(head_end.tenant_id)
        platform = create_platform(head_end.tenant_id)
        assert platform.revoke(signed_on.json()["access_token"]).status_code == 200


def rows_of(tenant_id: str) -> dict[str, Any]:
    """The rows of an operator by the address of their page."""
    rows = {
        "tenants/tenant": Tenant.objects.get(pk=tenant_id),
        "tenants/service": Service.objects.for_tenant(tenant_id).get(),
        "tenants/key": Key.objects.for_tenant(tenant_id).get(),
        "tenants/signingkey": SigningKey.objects.for_tenant(tenant_id).get(state="active"),
        "tenants/resourceserver": ResourceServer.objects.for_tenant(tenant_id).get(),
        "ags_sessions/account": Account.objects.for_tenant(tenant_id).get(),
        "ags_sessions/device": Device.objects.for_tenant(tenant_id).get(),
        "ags_sessions/securityevent": SecurityEvent.objects.for_tenant(tenant_id).get(),
        "ags_sessions/event": Event.objects.for_tenant(tenant_id).get(kind="access_token_revoked"),
        "ags_explanations/explanationlink": ExplanationLink.objects.for_tenant(tenant_id).get(),
        "ags_sessions/sessiontoken": SessionToken.objects.for_tenant(tenant_id).get(),
    }
    return {f"/admin/{model}/{row.pk}": row for model, row in rows.items()}


ACTS: dict[str, tuple[str, ...]] = {
    "tenant": ("disable", "enable", "rotate", "revoke-issued"),
    "service": ("check-configuration", "disable", "enable", "revoke-issued"),
    "key": ("revoke", "revoke-issued"),
    "signingkey": ("rotate", "revoke"),
    "resourceserver": ("disable", "enable"),
    "account": ("suspend", "reactivate", "revoke-all", "cancel"),
    "device": ("end", "disable", "enable", "delete-device"),
    "securityevent": (),
    "event": (),
    "explanationlink": ("revoke",),
    "sessiontoken": ("revoke",),
}


def acts_of(address: str) -> list[str]:
    return [f"{address}/{act}/" for act in ACTS[address.split("/")[3]]]


def test_every_page_and_every_act_is_in_the_tables(both: None) -> None:
    from django.contrib import admin

    pages = {str(model._meta.model_name): page for model, page in admin.site._registry.items()}
    del pages["process"]  # shows no tenant
    del pages["explainedrequest"]  # a search only: tests/sessions/test_admin_explanations.py
    ours = {name: page for name, page in pages.items() if name not in {"user", "group", "assignment"}}
    assert set(ours) == set(ACTS) == {address.split("/")[3] for address in rows_of("nagra")}
    for name, page in ours.items():
        paths = {action.path for action in page._get_base_actions_detail()}  # type: ignore[attr-defined]
        assert paths == set(ACTS[name])


def state() -> list[Any]:
    """Everything that an act could have changed."""
    models = (
        *(Service, Key, SigningKey, ResourceServer, SessionToken, Account, Device),
        *(SecurityEvent, Event, ExplanationLink),
    )
    rows = (Tenant.objects, *(model.unscoped for model in models))
    return [list(some.order_by("pk").values()) for some in rows]


@pytest.mark.parametrize("group", GROUPS)
def test_the_pages_of_the_other_operator_are_not_there(both: None, group: str) -> None:
    browser = person(group, "nagra")
    before = state()
    for address in rows_of("sunrise"):
        for method in (browser.get, browser.post):
            assert method(f"{address}/change/").status_code in (403, 404)
            assert method(f"{address}/history/").status_code in (302, 404)
            for act in acts_of(address):
                assert method(act).status_code in (403, 404)
            assert method(f"{address}/delete/").status_code in (302, 403)
    assert state() == before


LISTED = (
    *(f"tenants/{model}" for model in ("tenant", "service", "key", "signingkey", "resourceserver")),
    "ags_explanations/explanationlink",
)
LOOKED_UP = ("sessiontoken", "account", "device", "securityevent", "event")


@pytest.mark.parametrize("group", GROUPS)
def test_lists_and_searches_show_assigned_tenants_only(both: None, group: str) -> None:
    browser = person(group, "nagra")
    for model in LISTED:
        listed = browser.get(f"/admin/{model}/").context["cl"].result_list
        assert {getattr(row, "tenant_id", row.pk) for row in listed} == {"nagra"}
        assert not browser.get(f"/admin/{model}/?q=sunrise").context["cl"].result_list
    for model in LISTED[1:-1]:
        of_sunrise = browser.get(f"/admin/{model}/?tenant__id__exact=sunrise")
        assert not of_sunrise.context["cl"].result_list
    for field in (
        {"app_label": "tenants", "model_name": "key"},
        *({"app_label": "ags_sessions", "model_name": model} for model in LOOKED_UP),
    ):
        found = browser.get("/admin/autocomplete/", {**field, "field_name": "tenant", "term": ""})
        assert [one["id"] for one in found.json()["results"]] == ["nagra"]
        assert not browser.get(
            "/admin/autocomplete/", {**field, "field_name": "tenant", "term": "sun"}
        ).json()["results"]


@pytest.mark.parametrize("model", LOOKED_UP)
@pytest.mark.parametrize("group", GROUPS)
def test_what_the_other_operator_has_is_not_found(both: None, group: str, model: str) -> None:
    browser = person(group, "nagra")
    for tenant_id, found in (("nagra", True), ("sunrise", False)):
        known = {"tenant": tenant_id, "account_id": "account-1"}
        page = browser.post(f"/admin/ags_sessions/{model}/", known, follow=True)
        assert ("table" in page.context) == found
        assert bool(page.context["form"].errors) != found


def test_nothing_is_added_to_the_other_operator(both: None) -> None:
    browser = person("operator staff", "nagra")
    step = "/admin/tenants/service/add/?strategy=operator_token&tenant="
    assert "step 2" in browser.get(f"{step}nagra").content.decode()
    assert "step 1" in browser.get(f"{step}sunrise").content.decode()
    form = {"kid": "new", "algorithm": "HS256", "state": "staged", "source": "enter", "encoding": "text"}
    refused = browser.post("/admin/tenants/key/add/", {**form, "tenant": "sunrise", "secret": SECRET})
    assert "tenant" in refused.context["adminform"].form.errors
    assert (
        browser.post("/admin/tenants/key/add/", {**form, "tenant": "nagra", "secret": SECRET}).status_code
        == 302
    )
    assert [key.tenant_id for key in Key.unscoped.filter(kid="new")] == ["nagra"]


# What each group may do with the tenants of its people

SUPPORT = {
    "explanationlink": {"revoke"},
    "sessiontoken": {"revoke"},
    "account": {"suspend", "reactivate", "revoke-all"},
    "device": {"end", "disable", "enable"},
}
MAY: dict[str, Any] = {"operator staff": ACTS, "support": SUPPORT, "auditor": {}}


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_may_do_what_it_is_there_for(both: None, group: str) -> None:
    browser = person(group, "nagra")
    for address in reversed(rows_of("nagra")):
        assert browser.get(f"{address}/change/").status_code == 200
        may = MAY[group].get(address.split("/")[3], ())
        for act in acts_of(address):
            done = (
                200 if act.endswith("/check-configuration/") else 302
            )  # what was found is a page of its own
            assert browser.post(act).status_code == (done if act.split("/")[-2] in may else 403), act
    assert browser.get("/admin/tenants/tenant/add/").status_code == 403
    for page in ("auth/user", "auth/group", "tenants/assignment"):
        assert browser.get(f"/admin/{page}/").status_code == 403


def test_a_group_is_what_is_declared_after_each_migration(db: None) -> None:
    from django.core.management import call_command

    Group.objects.get(name="support").permissions.clear()
    Group.objects.get(name="auditor").delete()
    mine = Group.objects.create(name="mine")
    call_command("migrate", verbosity=0)
    for name, codenames in GROUPS.items():
        permissions = Group.objects.get(name=name).permissions
        assert set(permissions.values_list("codename", flat=True)) == set(codenames)
    assert not mine.permissions.exists(), "a group of the deployment's own is left alone"


def test_who_is_assigned_to_no_tenant_sees_none_and_who_may_see_all_sees_all(both: None) -> None:
    browser = person("auditor")
    assert not browser.get("/admin/tenants/tenant/").context["cl"].result_list
    from django.contrib.auth.models import Permission

    User.objects.get(username="auditor of ").user_permissions.set(
        Permission.objects.filter(codename="all_tenants")
    )
    assert len(browser.get("/admin/tenants/tenant/").context["cl"].result_list) == 2


def test_a_superuser_assigns_and_takes_back(admin_client: Client, both: None) -> None:
    browser = person("auditor")
    user = User.objects.get(username="auditor of ")
    made = {"tenant": "nagra", "user": user.pk}
    assert admin_client.post("/admin/tenants/assignment/add/", made).status_code == 302
    assert len(browser.get("/admin/tenants/tenant/").context["cl"].result_list) == 1
    again = admin_client.post("/admin/tenants/assignment/add/", made)
    assert again.status_code == 200
    assert again.context["adminform"].form.errors
    (assignment,) = Assignment.unscoped.all()
    assert admin_client.get(f"/admin/tenants/assignment/{assignment.pk}/change/").status_code == 200
    gone = admin_client.post(f"/admin/tenants/assignment/{assignment.pk}/delete/", {"post": "yes"})
    assert gone.status_code == 302
    assert not browser.get("/admin/tenants/tenant/").context["cl"].result_list
