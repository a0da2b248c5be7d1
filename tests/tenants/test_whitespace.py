"""White space around values is stripped: in every admin form, and in files for `apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ags.sessions.models import Account
from tenants.models import Key, ResourceServer, Service, Tenant
from tenants.whitespace import strip_whitespace
from tests.support.change_form import submit_change
from tests.support.clients import ClientApp, HeadEnd
from tests.support.configuration import apply_tenant as apply
from tests.support.staff import NEW_KEY_FORM as NEW
from tests.support.staff import SECRET_MARKER as MARKER
from tests.support.staff import TENANT_FORM as RULES

PREFIX, SUFFIX = "\ufeff\t\xa0\u200b ", " \u3000\u200e\u2060\r\n"
SECRET = "two words\xa0and more"
LOGIN = {"address": "https://idp.example/", "authentication": "basic", "user": "ags", "secret": SECRET}


def padded(value: Any) -> Any:
    match value:
        case str():
            return PREFIX + value + SUFFIX
        case dict():
            return {name: padded(member) for name, member in value.items()}
        case list():
            return [padded(member) for member in value]
        case _:
            return value


@pytest.mark.parametrize("text", ["", "a", "a\xa0b", "a\ufeff\r\nb", "\u200da\u200d"])
def test_only_surrounding_white_space_is_stripped(text: str) -> None:
    assert strip_whitespace(padded(text)) == text


def test_the_service_form_strips_settings_and_secrets(admin_client: Client, nagra: HeadEnd) -> None:
    step_two = "/admin/tenants/service/add/?tenant=nagra&strategy=operator_login"
    names = {"name": "Box", "display_name": "A\xa0box", "logo": "https://tv.example/logo.png"}
    form = admin_client.get(step_two).context["adminform"].form
    settings = {f: form[f].value() for f in form.fields if f.startswith("settings-") and form[f].value()}
    settings |= {f"settings-{name}": value for name, value in LOGIN.items()}
    sent = {**names, **settings}
    sent = {name: padded(value) for name, value in sent.items()}
    assert admin_client.post(step_two, sent).status_code == 302
    service = Service.unscoped.get(name="Box")
    assert (service.display_name, service.logo) == ("A\xa0box", "https://tv.example/logo.png")
    assert service.settings_with_secrets()["address"] == "https://idp.example/"
    assert service.settings_with_secrets()["secret"] == SECRET
    page = f"/admin/tenants/service/{service.pk}/change/"
    empty = submit_change(admin_client, page, sent | {"settings-secret": padded("")})
    assert empty.status_code == 302, "an empty field keeps the secret"
    assert Service.unscoped.get(name="Box").settings == service.settings


def test_the_tenant_key_and_resource_server_forms_strip_values(admin_client: Client, nagra: HeadEnd) -> None:
    tenant = {"name": "New\xa0Nagra", **RULES, "issuer": "tv", "allowed_origins": "https://tv.example"}
    sent = padded(tenant) | {"allowed_origins": padded(padded("https://tv.example"))}
    assert submit_change(admin_client, "/admin/tenants/tenant/nagra/change/", sent).status_code == 302
    changed = Tenant.objects.get(pk="nagra")
    assert (changed.name, changed.issuer) == ("New\xa0Nagra", "tv")
    assert changed.allowed_origins == ["https://tv.example"]
    entered = NEW | {"source": "enter", "encoding": "text", "secret": padded(MARKER), "kid": padded("k-2")}
    assert admin_client.post("/admin/tenants/key/add/", entered).status_code == 302
    assert Key.unscoped.get(kid="k-2").secret() == MARKER.encode()
    servers = "/admin/tenants/resourceserver/"
    admin_client.post(servers + "add/", {"tenant": "nagra", "name": padded("One")})
    server = ResourceServer.unscoped.get(name="One")
    submit_change(admin_client, f"{servers}{server.pk}/change/", {"name": padded("Two")})
    assert ResourceServer.unscoped.get().name == "Two"


@pytest.mark.parametrize("account_id", ["account-1", " \ufeffaccount 1 "])
def test_an_account_search_strips_terms_but_finds_ids_with_white_space(
    admin_client: Client, app: ClientApp, account_id: str
) -> None:
    app.sign_on(account_id)

    def count_results(kind: str, **terms: str) -> int:
        form = {"tenant": "nagra", **terms}
        page = admin_client.post(f"/admin/ags_sessions/{kind}/", form, follow=True)
        return len(page.context["table"]["rows"])

    for kind, rows in (
        ("account", 1),
        ("device", 1),
        ("sessiontoken", 1),
        ("securityevent", 0),
        ("event", 2),
    ):
        assert count_results(kind, account_id=account_id) == rows
    assert count_results("account", account_id=f"{account_id}\xa0") == (account_id == "account-1")
    assert count_results("event", account_id=f"{account_id}\xa0") == 2 * (account_id == "account-1")
    for kind in ("device", "event"):
        assert count_results(kind, client_id=padded(app.tokens["client_id"])) == 1


def test_a_new_account_id_is_stripped(admin_client: Client, nagra: HeadEnd) -> None:
    form = {"tenant": "nagra", "account_id": padded("new \xe4")}
    assert admin_client.post("/admin/ags_sessions/account/add/", form).status_code == 302
    assert Account.unscoped.get().account_id == "new \xe4"


def test_list_searches_strip_the_term(admin_client: Client, nagra: HeadEnd) -> None:
    for kind, term in (("tenant", "nagra"), ("key", nagra.kid), ("service", "nagra")):
        page = admin_client.get(f"/admin/tenants/{kind}/", {"q": padded(term)})
        assert page.context["cl"].result_count == 1


def test_apply_strips_values_but_not_decoded_base64(nagra: HeadEnd, tmp_path: Path) -> None:
    service = {"name": "Box", "strategy": "operator_login", "display_name": "A box"}
    output = apply(tmp_path, name="Nagra", services=[{**service, "settings": LOGIN}])
    assert "+ service nagra/Box" in output
    again = padded({**service, "settings": LOGIN})
    assert apply(tmp_path, name=padded("Nagra"), services=[again]) == "nothing to do\n"
    again["settings"]["secret"] = {"text": padded(SECRET)}
    assert apply(tmp_path, services=[again]) == "nothing to do\n"
    again["settings"]["secret"] = {"base64": "IHNwYWNlZCA="}
    assert apply(tmp_path, services=[again]) == "~ service nagra/Box: settings.secret changed\n"
    assert Service.unscoped.get(name="Box").settings_with_secrets()["secret"] == " spaced "
