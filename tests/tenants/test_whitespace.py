"""A pasted value is stripped: in every form of staff, and in the file of `apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ags.sessions.models import Account
from tenants.models import Key, ResourceServer, Service, Tenant
from tenants.whitespace import strip_whitespace
from tests.conftest import ClientApp, HeadEnd
from tests.tenants.test_admin_keys import MARKER, NEW
from tests.tenants.test_admin_tenants import RULES
from tests.tenants.test_field_cases import apply

BEFORE, BEHIND = "\ufeff\t\xa0\u200b ", " \u3000\u200e\u2060\r\n"
SECRET = "two words\xa0and more"
LOGIN = {"address": "https://idp.example/", "authentication": "basic", "user": "ags", "secret": SECRET}


def pasted(value: Any) -> Any:
    match value:
        case str():
            return BEFORE + value + BEHIND
        case dict():
            return {name: pasted(member) for name, member in value.items()}
        case list():
            return [pasted(member) for member in value]
        case _:
            return value


@pytest.mark.parametrize("text", ["", "a", "a\xa0b", "a\ufeff\r\nb", "\u200da\u200d"])
def test_white_space_around_a_text_goes_and_within_it_stays(text: str) -> None:
    assert strip_whitespace(pasted(text)) == text


def test_in_the_form_of_a_service_also_from_its_secrets(admin_client: Client, nagra: HeadEnd) -> None:
    step_two = "/admin/tenants/service/add/?tenant=nagra&strategy=operator_login"
    names = {"name": "Box", "display_name": "A\xa0box", "logo": "https://tv.example/logo.png"}
    form = admin_client.get(step_two).context["adminform"].form
    settings = {f: form[f].value() for f in form.fields if f.startswith("settings-") and form[f].value()}
    settings |= {f"settings-{name}": value for name, value in LOGIN.items()}
    sent = {**names, **settings}
    sent = {name: pasted(value) for name, value in sent.items()}
    assert admin_client.post(step_two, sent).status_code == 302
    service = Service.unscoped.get(name="Box")
    assert (service.display_name, service.logo) == ("A\xa0box", "https://tv.example/logo.png")
    assert service.settings_with_secrets()["address"] == "https://idp.example/"
    assert service.settings_with_secrets()["secret"] == SECRET
    page = f"/admin/tenants/service/{service.pk}/change/"
    empty = admin_client.post(page, sent | {"settings-secret": pasted("")})
    assert empty.status_code == 302, "it is left empty, so the secret is kept"
    assert Service.unscoped.get(name="Box").settings == service.settings


def test_in_those_of_a_tenant_a_key_and_a_resource_server(admin_client: Client, nagra: HeadEnd) -> None:
    tenant = {"name": "New\xa0Nagra", **RULES, "issuer": "tv", "allowed_origins": "https://tv.example"}
    sent = pasted(tenant) | {"allowed_origins": pasted(pasted("https://tv.example"))}
    assert admin_client.post("/admin/tenants/tenant/nagra/change/", sent).status_code == 302
    changed = Tenant.objects.get(pk="nagra")
    assert (changed.name, changed.issuer) == ("New\xa0Nagra", "tv")
    assert changed.allowed_origins == ["https://tv.example"]
    entered = NEW | {"source": "enter", "encoding": "text", "secret": pasted(MARKER), "kid": pasted("k-2")}
    assert admin_client.post("/admin/tenants/key/add/", entered).status_code == 302
    assert Key.unscoped.get(kid="k-2").secret() == MARKER.encode()
    servers = "/admin/tenants/resourceserver/"
    admin_client.post(servers + "add/", {"tenant": "nagra", "name": pasted("One")})
    server = ResourceServer.unscoped.get(name="One")
    admin_client.post(f"{servers}{server.pk}/change/", {"name": pasted("Two")})
    assert ResourceServer.unscoped.get().name == "Two"


@pytest.mark.parametrize("account_id", ["account-1", " \ufeffaccount 1 "])
def test_an_account_is_found_by_what_was_pasted_also_if_white_space_is_part_of_its_id(
    admin_client: Client, app: ClientApp, account_id: str
) -> None:
    app.sign_on(account_id)

    def found(kind: str, **known: str) -> int:
        sent = {"tenant": "nagra", **known}
        page = admin_client.post(f"/admin/ags_sessions/{kind}/", sent, follow=True)
        return len(page.context["table"]["rows"])

    for kind, rows in (("account", 1), ("device", 1), ("sessiontoken", 1), ("securityevent", 0)):
        assert found(kind, account_id=account_id) == rows
    assert found("account", account_id=f"{account_id}\xa0") == (account_id == "account-1")
    assert found("device", client_id=pasted(app.tokens["client_id"])) == 1


def test_an_account_is_added_without_it(admin_client: Client, nagra: HeadEnd) -> None:
    form = {"tenant": "nagra", "account_id": pasted("new \xe4")}
    assert admin_client.post("/admin/ags_sessions/account/add/", form).status_code == 302
    assert Account.unscoped.get().account_id == "new \xe4"


def test_a_list_is_searched_for_what_was_pasted(admin_client: Client, nagra: HeadEnd) -> None:
    for kind, term in (("tenant", "nagra"), ("key", nagra.kid), ("service", "nagra")):
        page = admin_client.get(f"/admin/tenants/{kind}/", {"q": pasted(term)})
        assert page.context["cl"].result_count == 1


def test_in_a_file_and_base64_keeps_it(nagra: HeadEnd, tmp_path: Path) -> None:
    service = {"name": "Box", "strategy": "operator_login", "display_name": "A box"}
    told = apply(tmp_path, name="Nagra", services=[{**service, "settings": LOGIN}])
    assert "+ service nagra/Box" in told
    again = pasted({**service, "settings": LOGIN})
    assert apply(tmp_path, name=pasted("Nagra"), services=[again]) == "nothing to do\n"
    again["settings"]["secret"] = {"text": pasted(SECRET)}
    assert apply(tmp_path, services=[again]) == "nothing to do\n"
    again["settings"]["secret"] = {"base64": "IHNwYWNlZCA="}
    assert apply(tmp_path, services=[again]) == "~ service nagra/Box: settings.secret changed\n"
    assert Service.unscoped.get(name="Box").settings_with_secrets()["secret"] == " spaced "
