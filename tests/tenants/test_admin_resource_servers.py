"""The pages of a resource server: its credentials are shown once and work until it is disabled."""

import base64
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client

from tenants.models import ResourceServer
from tenants.snapshot import snapshot
from tests.support.change_form import submit_change
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person

LIST = "/admin/tenants/resourceserver/"
NEW = {"tenant": "nagra", "name": "Entitlements"}


def text(response: Any) -> str:
    return response.content.decode()


def shown(response: Any, name: str) -> str:
    found = re.search(rf'<code id="{name}"[^>]*>([^<]+)</code>', text(response))
    assert found is not None
    return found.group(1)


def introspect(client_id: str, secret: str, token: str) -> Any:
    snapshot.invalidate("nagra")
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return Client().post(
        "/oauth/introspect",
        urlencode({"token": token}),
        content_type="application/x-www-form-urlencoded",
        headers={"authorization": f"Basic {basic}"},
    )


@pytest.fixture
def server(nagra: HeadEnd) -> ResourceServer:
    """One of nagra's."""
    made = ResourceServer(tenant_id="nagra", name="Entitlements")
    made.set_credentials()
    made.save()
    return made


def test_credentials_are_shown_once_and_work_until_it_is_disabled(
    admin_client: Client, app: ClientApp
) -> None:
    app.sign_on()
    answer = admin_client.post(LIST + "add/", NEW)
    assert "no-store" in answer["Cache-Control"]
    client_id, secret = shown(answer, "client-id"), shown(answer, "secret")
    assert client_id.startswith("nagra~")
    token = app.tokens["access_token"]
    assert introspect(client_id, secret, token).json()["active"] is True

    server = ResourceServer.objects.for_tenant("nagra").get()
    address = f"{LIST}{server.pk}/"
    assert "is refused within a second" in text(admin_client.get(address + "disable/"))
    told = text(admin_client.post(address + "disable/", follow=True))
    assert "Resource server Entitlements of nagra is disabled." in told
    assert address + "disable/" not in told
    assert introspect(client_id, secret, token).status_code == 401
    admin_client.post(address + "enable/")
    assert introspect(client_id, secret, token).json()["active"] is True

    pages = [admin_client.get(address + page) for page in ("change/", "history/", "disable/")]
    places = [
        *(text(page) for page in (*pages, admin_client.get(LIST), admin_client.get("/admin/"))),
        *(str(vars(row)) for row in (*LogEntry.objects.all(), *ResourceServer.history.all())),
        *(str(session.get_decoded()) for session in Session.objects.all()),
    ]
    assert not any(secret in place for place in places)


def test_its_name_changes_and_nothing_else_does(admin_client: Client, server: ResourceServer) -> None:
    sent = {"name": "Renamed", "tenant": "sunrise", "client_id": "x", "secret_hash": "x", "enabled": ""}
    assert submit_change(admin_client, f"{LIST}{server.pk}/change/", sent).status_code == 302
    changed = ResourceServer.objects.for_tenant("nagra").get()
    assert (changed.name, changed.client_id, changed.enabled) == ("Renamed", server.client_id, True)
    assert bytes(changed.secret_hash) == bytes(server.secret_hash)
    change, *_ = admin_client.get(f"{LIST}{server.pk}/history/").context["changes"]
    assert [(d.label, d.before, d.after) for d in change.differences] == [("name", "Entitlements", "Renamed")]


@pytest.mark.parametrize("wrong", [{"name": ""}, {"tenant": ""}, {"tenant": "nobody"}, {"name": "x" * 201}])
def test_a_form_that_is_wrong_makes_nothing(
    admin_client: Client, nagra: HeadEnd, wrong: dict[str, str]
) -> None:
    page = admin_client.post(LIST + "add/", NEW | wrong)
    assert set(page.context["adminform"].form.errors) == set(wrong)
    assert not ResourceServer.unscoped.exists()


def test_it_is_found_by_tenant_or_client_id(
    admin_client: Client, server: ResourceServer, sunrise: HeadEnd
) -> None:
    for query in ({"q": "nagra"}, {"q": server.client_id[:12]}, {"tenant__id__exact": "nagra"}):
        assert list(admin_client.get(LIST, query).context["cl"].result_list) == [server]
    assert not admin_client.get(LIST, {"q": "sunrise"}).context["cl"].result_list
    assert f"{LIST}add/?tenant=nagra" in text(admin_client.get(LIST, {"tenant__id__exact": "nagra"}))


@pytest.mark.parametrize(("group", "may"), [("operator staff", True), ("support", False), ("auditor", False)])
def test_only_operator_staff_may(server: ResourceServer, sunrise: HeadEnd, group: str, may: bool) -> None:
    browser = person(group, "nagra")
    address = f"{LIST}{server.pk}/"
    assert (address + "disable/" in text(browser.get(address + "change/"))) == may
    assert browser.post(address + "disable/").status_code == (302 if may else 403)
    assert browser.post(LIST + "add/", NEW).status_code == (200 if may else 403)
    of_sunrise = browser.post(LIST + "add/", NEW | {"tenant": "sunrise"})
    assert not ResourceServer.objects.for_tenant("sunrise").exists()
    if may:
        assert of_sunrise.context["adminform"].form.errors["tenant"]
