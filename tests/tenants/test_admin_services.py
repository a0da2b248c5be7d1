"""The pages of a service: two steps, and the settings that the strategy's own form declares."""

from typing import Any

import pytest
from django import forms
from django.test import Client

from providers.contract import SessionTokenSettings
from providers.registry import strategies
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.change_form import submit_change
from tests.support.clients import SERVICE, HeadEnd
from tests.support.staff import person

LIST = "/admin/tenants/service/"
STEP_TWO = LIST + "add/?tenant=nagra&strategy=operator_token"
GOOD = {
    "name": "Box sign-on",
    "display_name": "Sign on a box",
    "logo": "",
    "enabled": "on",
    "settings-session_token_ttl": "120",
    "settings-clock_skew": "10",
    "settings-replay": "required",
    "settings-max_lifetime": "",
}


def test_first_tenant_and_strategy_are_chosen(admin_client: Client, nagra: HeadEnd) -> None:
    page = _text(admin_client.get(LIST + "add/"))
    assert "step 1 of 2" in page
    assert 'name="strategy" value="operator_token"' in page.replace("\n", " ").replace("  ", " ")
    assert 'name="name"' not in page
    assert "nagra" not in page, "the tenants are searched for, not listed"


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ({"tenant": "nobody", "strategy": "operator_token"}, "tenant"),
        ({"tenant": "nagra", "strategy": "no_such"}, "strategy"),
        ({"strategy": "operator_token"}, "tenant"),
        ({"tenant": "no tenant", "strategy": "operator_token"}, "tenant"),
    ],
)
def test_a_choice_that_is_not_there_is_refused_at_its_field(
    admin_client: Client, nagra: HeadEnd, choice: dict[str, str], field: str
) -> None:
    page = admin_client.get(LIST + "add/", choice)
    assert list(page.context["form"].errors) == [field]
    assert admin_client.post(LIST + "add/", GOOD, query_params=choice).status_code == 200
    assert Service.unscoped.count() == 1


def test_then_the_fields_that_the_strategy_declares_are_filled(admin_client: Client, nagra: HeadEnd) -> None:
    page = admin_client.get(STEP_TWO)
    form = page.context["adminform"].form
    declared = strategies()["operator_token"].Settings.base_fields
    assert {name for name in form.fields if name.startswith("settings-")} == {
        f"settings-{name}" for name in declared
    }
    assert form["settings-session_token_ttl"].value() == 300
    text = _text(page)
    assert 'type="number" name="settings-clock_skew"' in text
    assert '<select name="settings-replay"' in text
    assert str(declared["clock_skew"].help_text) in text
    assert 'name="tenant"' not in text
    assert 'name="strategy"' not in text
    assert 'name="settings"' not in text


def test_a_strategys_own_settings_come_before_those_that_many_share(
    admin_client: Client, nagra: HeadEnd
) -> None:
    page = admin_client.get(LIST + "add/", {"tenant": "nagra", "strategy": "signed_jwt"})
    names = [name for name in page.context["adminform"].form.fields if name.startswith("settings-")]
    assert names[:3] == ["settings-keys_from", "settings-key_set_address", "settings-public_keys"]
    assert names[-2:] == ["settings-deadline", "settings-ca_certificates"]


def test_a_service_is_added_and_offered(admin_client: Client, nagra: HeadEnd) -> None:
    assert admin_client.post(STEP_TWO, GOOD).status_code == 302
    stored = Service.unscoped.get(name="Box sign-on")
    assert (stored.tenant_id, stored.strategy, stored.enabled) == ("nagra", "operator_token", True)
    assert stored.settings == {
        "session_token_ttl": 120,
        "clock_skew": 10,
        "replay": "required",
        "max_lifetime": None,
    }
    offered = nagra.discover().json()["availableServices"]
    assert "Box sign-on" in [one["authServiceName"] for one in offered]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("session_token_ttl", "99999"), ("session_token_ttl", ""), ("clock_skew", "x"), ("replay", "maybe")],
)
def test_settings_that_do_not_hold_are_told_at_their_field(
    admin_client: Client, nagra: HeadEnd, setting: str, value: str
) -> None:
    page = admin_client.post(STEP_TWO, GOOD | {f"settings-{setting}": value})
    assert list(page.context["adminform"].form.errors) == [f"settings-{setting}"]
    assert not Service.unscoped.filter(name="Box sign-on").exists()


def test_what_a_strategy_says_of_several_settings_together_is_told(
    admin_client: Client, nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(SessionTokenSettings):
        name = forms.CharField(required=False)

        def clean(self) -> dict[str, Any]:
            if self.cleaned_data.get("session_token_ttl") == 120:
                raise forms.ValidationError("Not 120, of all numbers.")
            return self.cleaned_data

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)
    step_two = LIST + "add/?tenant=nagra&strategy=dummy"
    refused = admin_client.post(step_two, GOOD)
    assert "Not 120, of all numbers." in _text(refused)
    sent = GOOD | {"settings-session_token_ttl": "121", "settings-name": "a setting called name"}
    assert admin_client.post(step_two, sent).status_code == 302
    stored = Service.unscoped.get(strategy="dummy")
    assert stored.name == "Box sign-on"
    assert stored.settings["name"] == "a setting called name"


def test_a_name_that_the_tenant_has_already_is_refused(admin_client: Client, nagra: HeadEnd) -> None:
    page = admin_client.post(STEP_TWO, GOOD | {"name": SERVICE})
    assert page.context["adminform"].form.errors["name"]
    assert Service.unscoped.count() == 1


def test_the_stored_settings_are_shown_and_changed_and_the_rest_stays_fixed(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["clock_skew"] = 77
    service.save()
    address = f"{LIST}{service.pk}/change/"
    assert admin_client.get(address).context["adminform"].form["settings-clock_skew"].value() == 77

    forged = GOOD | {"name": SERVICE, "tenant": "sunrise", "strategy": "dummy", "settings": "{}"}
    query = {"tenant": "sunrise", "strategy": "dummy"}
    sent = submit_change(admin_client, address, forged, query_params=query)
    assert sent.status_code == 302
    service.refresh_from_db()
    assert (service.tenant_id, service.strategy) == ("nagra", "operator_token")
    assert service.settings["clock_skew"] == 10


def rows_of(page: Any) -> dict[str, tuple[str, str]]:
    """The rows of the page that are no fields: what each shows and explains, by its label."""
    lines = [field for fieldset in page.context["adminform"] for line in fieldset for field in line]
    assert all(line.is_readonly for line in lines)
    return {line.field["label"]: (line.contents(), line.field["help_text"]) for line in lines}


def test_the_history_says_so_where_a_save_has_changed_nothing(admin_client: Client, nagra: HeadEnd) -> None:
    service = Service.unscoped.get()
    history = f"{LIST}{service.pk}/history/"
    assert "Saved without a change." not in _text(admin_client.get(history))
    service.save()
    assert _text(admin_client.get(history)).count("Saved without a change.") == 1


def test_who_may_only_look_sees_the_settings_as_rows(nagra: HeadEnd) -> None:
    service = Service.unscoped.get()
    service.settings |= {"clock_skew": 77, "replay": "required"}
    service.save()
    auditor = person("auditor", "nagra")
    address = f"{LIST}{service.pk}/change/"
    page = auditor.get(address)
    rows = rows_of(page)
    declared = strategies()["operator_token"].Settings.base_fields
    assert rows["Session token lifetime"] == ("300", declared["session_token_ttl"].help_text)
    assert rows["Clock skew"] == ("77", declared["clock_skew"].help_text)
    assert rows["Replay"][0] == "Every token must have a jti, and is accepted once"
    assert rows["Max lifetime"][0] == "-"
    for shown in (
        "77",
        declared["clock_skew"].help_text,
        "Every token must have a jti, and is accepted once",
    ):
        assert str(shown) in _text(page)
    assert 'name="settings-' not in _text(page)
    assert auditor.post(address, GOOD).status_code == 403


def test_of_a_setting_of_any_kind_its_value_is_shown_but_never_a_password(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(SessionTokenSettings):
        on = forms.BooleanField(required=False)
        off = forms.BooleanField(required=False)
        zero = forms.IntegerField(initial=5)
        since_then = forms.IntegerField(label="Added later", initial=5)
        text = forms.CharField()
        empty = forms.CharField(required=False)
        several = forms.MultipleChoiceField(choices=[("a", "A"), ("b", "B")])
        password = forms.CharField(widget=forms.PasswordInput)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)
    marker = "<script>alert(1)</script>"
    settings = {"on": True, "off": False, "zero": 0, "text": marker, "empty": "", "several": ["a", "b"]}
    stored = settings | {"password": "secret-marker-0815", "session_token_ttl": 300}
    Service.unscoped.update(strategy="dummy", settings=stored)
    page = person("auditor", "nagra").get(f"{LIST}{Service.unscoped.get().pk}/change/")
    rows = {label: contents for label, (contents, _) in rows_of(page).items()}
    assert 'title="True"' in rows["On"], "an icon"
    assert 'title="False"' in rows["Off"]
    assert [rows[label] for label in ("Zero", "Added later", "Empty", "Several")] == ["0", "5", "-", "a, b"]
    assert rows["Text"] == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert rows["Password"] == "Not shown"
    assert marker not in _text(page)
    assert "marker-0815" not in _text(page)


def test_disabling_asks_first_and_stops_at_once(admin_client: Client, nagra: HeadEnd) -> None:
    address = f"{LIST}{Service.unscoped.get().pk}/"
    assert "refused from now on" in _text(admin_client.get(address + "disable/"))
    assert nagra.present(nagra.token()).status_code == 200
    admin_client.post(address + "disable/")
    assert nagra.present(nagra.token()).status_code == 403
    admin_client.post(address + "enable/")
    snapshot.invalidate("nagra")
    assert nagra.present(nagra.token()).status_code == 200


def test_enabling_demands_valid_settings(admin_client: Client, nagra: HeadEnd) -> None:
    service = Service.unscoped.get()
    broken = {**service.settings, "session_token_ttl": 99999}
    Service.unscoped.update(enabled=False, settings=broken)
    address = f"{LIST}{service.pk}/"
    told = admin_client.post(address + "enable/", follow=True)
    assert "Not done." in _text(told)
    assert "session_token_ttl" in _text(told)
    fields = {
        name: value for name, value in told.context["adminform"].form.initial.items() if value is not None
    }
    page = submit_change(admin_client, address + "change/", fields | {"enabled": "on"})
    assert list(page.context["adminform"].form.errors) == ["settings-session_token_ttl"]
    assert not Service.unscoped.get().enabled


def test_its_form_neither_enables_nor_disables(admin_client: Client, nagra: HeadEnd) -> None:
    service = Service.unscoped.get()
    address = f"{LIST}{service.pk}/"
    sent = {name: value for name, value in GOOD.items() if name != "enabled"} | {"name": SERVICE}
    for act, box in (("disable", {}), ("enable", {}), ("disable", {"enabled": "on"})):
        page = _text(admin_client.get(address + "change/"))
        assert 'name="enabled"' not in page
        assert f'href="{address}{act}/"' in page
        before = Service.unscoped.get().enabled
        assert submit_change(admin_client, address + "change/", sent | box).status_code == 302
        assert Service.unscoped.get().enabled == before
        admin_client.post(f"{address}{act}/")
        assert Service.unscoped.get().enabled != before


class TestAServiceWhoseProviderIsNotInstalled:
    @pytest.fixture
    def address(self, nagra: HeadEnd) -> str:
        Service.unscoped.update(strategy="carrier_pigeon")
        return f"{LIST}{Service.unscoped.get().pk}/"

    def test_is_listed_and_shown_with_a_sentence(self, admin_client: Client, address: str) -> None:
        assert "carrier_pigeon (not installed)" in _text(admin_client.get(LIST))
        page = _text(admin_client.get(address + "change/"))
        assert "The provider of the strategy carrier_pigeon is not installed" in page
        assert 'name="settings-' not in page

    def test_can_be_disabled_by_the_button_and_keeps_its_settings(
        self, admin_client: Client, address: str
    ) -> None:
        before = Service.unscoped.get().settings
        admin_client.post(address + "disable/")
        after = Service.unscoped.get()
        assert not after.enabled
        assert after.settings == before

    def test_is_changed_only_while_it_is_disabled(self, admin_client: Client, address: str) -> None:
        fields = {"name": SERVICE, "display_name": "Changed"}
        page = submit_change(admin_client, address + "change/", fields)
        assert "disable it before you change it" in _text(page)
        admin_client.post(address + "disable/")
        before = Service.unscoped.get().settings
        assert submit_change(admin_client, address + "change/", fields).status_code == 302
        after = Service.unscoped.get()
        assert (after.enabled, after.display_name, after.settings) == (False, "Changed", before)
        assert "Not done." in _text(admin_client.post(address + "enable/", follow=True))
        assert not Service.unscoped.get().enabled

    def test_its_name_for_the_strategy_is_not_taken_for_markup(
        self, admin_client: Client, address: str
    ) -> None:
        Service.unscoped.update(strategy="<script>alert(1)</script>")
        for page in (LIST, address + "change/", address + "history/"):
            assert "<script>alert" not in _text(admin_client.get(page))


def _text(response: Any) -> str:
    text: str = response.content.decode()
    return text
