"""The pages of a tenant, and who may use which."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tenants.models import Key, Service, Tenant
from tenants.snapshot import snapshot
from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.staff import TENANT_FORM as RULES
from tests.support.staff import person

LIST = "/admin/tenants/tenant/"


def test_the_list_finds_a_tenant_by_the_start_of_its_id_or_a_part_of_its_name(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    Tenant(id="t-1", name="Skyline Television").save()
    assert all(name in _text(admin_client.get(LIST)) for name in ("nagra", "sunrise", "t-1"))
    for words in ("sunr", "SUNR", "sunrise"):
        found = _rows(admin_client.get(LIST, {"q": words}))
        assert found == ["sunrise"], words
    assert _rows(admin_client.get(LIST, {"q": "line tele"})) == ["t-1"]


def test_a_tenant_is_added_and_its_id_never_changes(admin_client: Client) -> None:
    added = admin_client.post(LIST + "add/", {"id": "nova", "name": "Nova", "enabled": "on", **RULES})
    assert added.status_code == 302
    page = _text(admin_client.get(LIST + "nova/change/"))
    assert 'name="id"' not in page
    assert 'name="name"' in page
    submit_change(
        admin_client, LIST + "nova/change/", {"id": "other", "name": "Nova Two", "enabled": "", **RULES}
    )
    assert list(Tenant.objects.values_list("id", "name", "enabled")) == [("nova", "Nova Two", True)]


def test_the_retention_of_events_is_in_the_fieldset_of_the_audit_trail(
    admin_client: Client, nagra: HeadEnd
) -> None:
    Tenant.objects.update(event_retention=1)
    for page, value in ((LIST + "add/", 30), (LIST + "nagra/change/", 1)):
        form = admin_client.get(page).context["adminform"]
        assert {name: options["fields"] for name, options in form.fieldsets}["Audit trail"] == (
            "event_retention",
        )
        assert form.form["event_retention"].value() == value


def test_an_id_that_no_header_could_carry_is_refused_at_its_field(admin_client: Client) -> None:
    page = admin_client.post(LIST + "add/", {"id": "no spaces", "name": "x"})
    assert page.context["adminform"].form.errors["id"]
    assert not Tenant.objects.exists()


CHANGED: dict[str, tuple[str, Any]] = {
    "device_limit": ("3", 3),
    "access_token_ttl": ("60", 60),
    "refresh_token_ttl": ("300", 300),
    "sign_on_ttl": ("157680000", 157_680_000),
    "refresh_grace": ("0", 0),
    "signing_algorithm": ("HS256", "HS256"),
    "issuer": ("https://ags.example", "https://ags.example"),
    "audience": ("platform", "platform"),
    "allowed_origins": (
        "https://tv.example\r\n\r\n  http://localhost:8080  \r\n",
        ["https://tv.example", "http://localhost:8080"],
    ),
    "max_failures_per_address": ("0", 0),
    "max_sign_ons_per_account": ("1000000", 1_000_000),
    "exempt_networks": ("10.1.0.0/16\r\n 2001:db8::1 \r\n", ["10.1.0.0/16", "2001:db8::1"]),
    "event_retention": ("3650", 3650),
    "unused_retention": ("365", 365),
}


def test_the_rules_for_client_apps_are_changed_here(admin_client: Client, nagra: HeadEnd) -> None:
    sent = {"name": "Nagra", **{name: text for name, (text, _) in CHANGED.items()}}
    assert submit_change(admin_client, LIST + "nagra/change/", sent).status_code == 302
    tenant = Tenant.objects.get()
    for name, (_, value) in CHANGED.items():
        assert getattr(tenant, name) == value
    page = _text(admin_client.get(LIST + "nagra/change/"))
    assert "https://tv.example\nhttp://localhost:8080</textarea>" in page
    change, *_ = admin_client.get(LIST + "nagra/history/").context["changes"]
    told = {d.label: (d.before, d.after) for d in change.differences}
    labels = {name: name.replace("_", " ") for name in CHANGED} | {
        "event_retention": "event retention (days)",
        "unused_retention": "unused retention (days)",
    }
    assert set(told) == set(labels.values())
    assert told["allowed origins"] == ("—", "https://tv.example, http://localhost:8080")
    assert "https://tv.example" in _text(person("auditor", "nagra").get(LIST + "nagra/change/"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("device_limit", "-1"),
        ("device_limit", "1" + 20 * "0"),
        ("access_token_ttl", "59"),
        ("access_token_ttl", "86401"),
        ("refresh_token_ttl", ""),
        ("sign_on_ttl", "x"),
        ("refresh_grace", "61"),
        ("signing_algorithm", "RS256"),
        ("issuer", ""),
        ("audience", "x" * 201),
        ("allowed_origins", "https://tv.example\nhttps://tv.example/path"),
        ("allowed_origins", "*"),
        ("allowed_origins", "https://TV.example"),
        ("allowed_origins", "\n".join(f"https://{n}.example" for n in range(101))),
        ("allowed_origins", "x" * 30_001),
        ("max_failures_per_address", "-1"),
        ("max_failures_per_address", "1000001"),
        ("max_sign_ons_per_account", ""),
        ("exempt_networks", "10.1.0.0/16\n10.1.0.1/16"),
        ("exempt_networks", "ags.example"),
        ("exempt_networks", "\n".join(f"10.1.{n}.0/24" for n in range(101))),
        ("exempt_networks", "1" * 101),
        ("event_retention", "0"),
        ("event_retention", "3651"),
        ("unused_retention", "3651"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_at_its_field(
    admin_client: Client, nagra: HeadEnd, name: str, text: str
) -> None:
    page = submit_change(admin_client, LIST + "nagra/change/", {"name": "Other", **RULES, name: text})
    assert list(page.context["adminform"].form.errors) == [name]
    assert Tenant.objects.get().name == "Nagra"


def test_a_tenant_leads_to_its_services_and_keys(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    page = _text(admin_client.get(LIST + "nagra/change/"))
    for model in ("service", "key"):
        link = f"/admin/tenants/{model}/?tenant__id__exact=nagra"
        assert link in page
        listed = admin_client.get(link)
        assert {row.tenant_id for row in listed.context["cl"].result_list} == {"nagra"}
        assert f"/admin/tenants/{model}/add/?tenant=nagra" in _text(listed)


def test_disabling_a_tenant_asks_first_and_then_stops_it_at_once(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    question = admin_client.get(LIST + "nagra/disable/")
    assert "Every request with nv-tenant-id nagra is refused" in _text(question)
    assert nagra.present(nagra.token()).status_code == 200

    assert admin_client.post(LIST + "nagra/disable/").status_code == 302
    assert nagra.present(nagra.token()).json()["reason"] == "service_not_available"
    assert sunrise.present(sunrise.token()).status_code == 200

    offered = _text(admin_client.get(LIST + "nagra/change/"))
    assert "/nagra/enable/" in offered
    assert "/nagra/disable/" not in offered
    admin_client.post(LIST + "nagra/enable/")
    snapshot.invalidate("nagra")  # the second in which it may still be taken for disabled
    assert nagra.present(nagra.token()).status_code == 200


@pytest.mark.parametrize("model", ["tenant", "service", "key"])
def test_nothing_can_be_deleted(admin_client: Client, nagra: HeadEnd, model: str) -> None:
    row = {"tenant": Tenant.objects, "service": Service.unscoped, "key": Key.unscoped}[model].get()
    address = f"/admin/tenants/{model}/{row.pk}"
    assert admin_client.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
    assert "/delete/" not in _text(admin_client.get(f"{address}/change/"))
    listed = admin_client.post(
        f"/admin/tenants/{model}/",
        {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"},
    )
    assert listed.status_code == 200
    assert type(row)._default_manager.filter(pk=row.pk).exists()


@pytest.fixture
def reader(nagra: HeadEnd) -> Client:
    """Somebody who may look at everything and change nothing."""
    return person("auditor", "nagra")


@pytest.mark.parametrize(
    ("model", "act"),
    [("tenant", "disable"), ("service", "disable"), ("key", "revoke")],
)
def test_who_may_only_look_cannot_act(reader: Client, nagra: HeadEnd, model: str, act: str) -> None:
    row = {"tenant": Tenant.objects, "service": Service.unscoped, "key": Key.unscoped}[model].get()
    page = reader.get(f"/admin/tenants/{model}/{row.pk}/change/")
    assert page.status_code == 200
    assert f"/{act}/" not in _text(page)
    for call in (reader.get, reader.post):
        assert call(f"/admin/tenants/{model}/{row.pk}/{act}/").status_code == 403
    assert reader.get(f"/admin/tenants/{model}/add/").status_code == 403
    assert nagra.present(nagra.token()).status_code == 200


def test_only_superusers_manage_accounts(reader: Client) -> None:
    for page in ("user/", "user/add/", "group/", "group/add/"):
        assert reader.get(f"/admin/auth/{page}").status_code == 403


def test_an_act_needs_the_token_against_forged_requests(nagra: HeadEnd, staff: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(staff)
    assert strict.post(LIST + "nagra/disable/").status_code == 403
    assert nagra.present(nagra.token()).status_code == 200


def test_the_history_says_who_changed_what_and_when(admin_client: Client, nagra: HeadEnd) -> None:
    submit_change(admin_client, LIST + "nagra/change/", {"name": "Nagra Renamed", **RULES})
    service = Service.unscoped.get()
    fields = {
        "name": service.name,
        "display_name": service.display_name,
        "enabled": "on",
        "settings-session_token_ttl": "61",
        "settings-clock_skew": "30",
        "settings-replay": "if_present",
    }
    changed = submit_change(admin_client, f"/admin/tenants/service/{service.pk}/change/", fields)
    assert changed.status_code == 302

    change, creation = admin_client.get(LIST + "nagra/history/").context["changes"]
    assert (change.user, change.action) == ("admin", "Changed")
    assert [(d.label, d.before, d.after) for d in change.differences] == [("name", "Nagra", "Nagra Renamed")]
    assert (creation.user, creation.action) == ("", "Created")

    page = admin_client.get(f"/admin/tenants/service/{service.pk}/history/")
    told = {(d.label, d.before, d.after) for d in page.context["changes"][0].differences}
    assert told == {("session token ttl", "300", "61"), ("logo", "https://customer.example/auth.png", "—")}
    assert "admin" in _text(page)


def test_only_the_newest_changes_are_read(admin_client: Client, nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get()
    for number in range(101):
        tenant.name = f"Name {number}"
        tenant.save()
    page = admin_client.get(LIST + "nagra/history/")
    assert len(page.context["changes"]) == 100
    assert page.context["changes"][-1].differences[0].before == "Name 0"
    assert "there are older ones" in _text(page)


def _text(response: object) -> str:
    return response.content.decode()  # type: ignore[attr-defined]


def _rows(response: object) -> list[str]:
    return [row.pk for row in response.context["cl"].result_list]  # type: ignore[attr-defined]
