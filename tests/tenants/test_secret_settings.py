"""Secret settings: sealed on every way in, in the clear for the strategy alone, and seen by nobody."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django import forms
from django.core.checks import Tags, run_checks
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from ags.server.logs import JSONLines, ReadableLines
from providers.contract import SecretField, SessionTokenSettings
from providers.registry import strategies
from tenants.models import Service, Tenant
from tenants.secrets.encryption import DecryptionFailed, encrypted_with_newest_key
from tenants.secrets.settings import is_placeholder
from tenants.snapshot import snapshot
from tests.conftest import HeadEnd, person
from tests.tenants.test_encryption import NEW, OLD

MARKER = "marker0815-of-a-secret"
OTHER = "marker4711-of-another"
NAME = "Double"
LIST = "/admin/tenants/service/"


def double(tenant: str = "nagra", **changes: Any) -> Service:
    """Store a service of the dummy with a passphrase."""
    fields = {"name": NAME, "strategy": "dummy", "display_name": "D", "enabled": True} | changes
    service = Service(tenant_id=tenant, **{"settings": {"passphrase": MARKER}, **fields})
    service.save()
    snapshot.reread(tenant)
    return service


def stored(tenant: str = "nagra") -> Service:
    return Service.objects.for_tenant(tenant).get(name=NAME)


def set_directly(service: Service, **columns: Any) -> None:
    Service.unscoped.filter(pk=service.pk).update(**columns)
    snapshot.reread(service.tenant_id)


def sign_on(passphrase: str | None, head_end: HeadEnd) -> int:
    """Get a session token of the dummy with that passphrase; the status."""
    parameters = [{"name": "Account", "value": "somebody"}]
    if passphrase is not None:
        parameters.append({"name": "Passphrase", "value": passphrase})
    status: int = head_end.post({"parameters": parameters}, x_auth_service_id=NAME).status_code
    return status


def everything_stored() -> str:
    """All that is in the database, as text."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows += [bytes(c) if isinstance(c, memoryview) else c for row in cursor.fetchall() for c in row]
    return repr(rows)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)

    def lines() -> str:
        formats: list[logging.Formatter] = [JSONLines(), ReadableLines()]
        return "\n".join(one.format(record) for record in caplog.records for one in formats)

    return lines


@pytest.fixture
def two_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy with a secret that it needs and one that it can do without."""

    class Settings(SessionTokenSettings):
        needed = SecretField(destination_settings=(), min_length=4)
        spare = SecretField(destination_settings=(), required=False)
        plain = forms.CharField(required=False)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)


# In and out by the model


def test_the_strategy_is_given_the_secret(nagra: HeadEnd) -> None:
    double()
    assert [sign_on(given, nagra) for given in (MARKER, OTHER, "", None)] == [200, 401, 401, 401]


def test_what_is_stored_is_a_mark_and_a_seal(nagra: HeadEnd, logged: Callable[[], str]) -> None:
    service = double()
    assert is_placeholder(service.settings["passphrase"])
    assert stored().settings == service.settings
    assert stored().secrets() == {"passphrase": MARKER}
    assert MARKER not in everything_stored()
    view = snapshot.tenant("nagra")
    assert view is not None
    assert view.services[NAME].settings["passphrase"] == MARKER
    assert MARKER not in repr(view) + repr(view.services[NAME]) + repr(stored().__dict__)
    out = io.StringIO()
    call_command("dumpdata", "tenants", stdout=out)
    assert MARKER not in out.getvalue()
    assert "historicalservice" in out.getvalue()
    assert MARKER not in logged()


def test_another_secret_has_another_mark_and_the_same_one_keeps_it(nagra: HeadEnd) -> None:
    first = double().settings["passphrase"]
    service = stored()
    service.settings["passphrase"] = MARKER
    service.save()
    assert service.settings["passphrase"] == first
    service.settings["passphrase"] = OTHER
    service.save(update_fields=["settings"])
    assert is_placeholder(service.settings["passphrase"])
    assert service.settings["passphrase"] != first
    assert stored().settings == service.settings
    assert stored().secrets() == {"passphrase": OTHER}
    marks = {record.settings["passphrase"] for record in stored().history.all()}
    assert marks == {first, service.settings["passphrase"]}
    assert not hasattr(stored().history.first(), "sealed_secrets")


@pytest.mark.parametrize("nothing", ["", None])
def test_a_secret_that_is_not_needed_can_be_left_out_and_taken_away(nagra: HeadEnd, nothing: Any) -> None:
    double(settings={"passphrase": nothing})
    assert stored().sealed_secrets is None
    assert sign_on(None, nagra) == 200
    set_to(MARKER)
    set_to(nothing)
    assert (stored().settings["passphrase"], stored().sealed_secrets) == ("", None)
    assert sign_on(None, nagra) == 200


def set_to(text: Any) -> None:
    service = stored()
    service.settings["passphrase"] = text
    service.save()
    snapshot.reread("nagra")


def test_a_mark_means_what_is_stored_and_nothing_where_nothing_is(nagra: HeadEnd) -> None:
    with pytest.raises(ValidationError, match="passphrase: Nothing is stored: enter it"):
        double(settings={"passphrase": "sealed:00000000"})
    mark = double().settings["passphrase"]
    set_to("sealed:00000000")
    assert stored().settings["passphrase"] == mark
    assert stored().secrets() == {"passphrase": MARKER}


def test_a_secret_that_is_needed_is_demanded(nagra: HeadEnd, two_secrets: None) -> None:
    for settings in ({}, {"needed": ""}, {"needed": None}):
        with pytest.raises(ValidationError, match=r"needed: This field is required\."):
            double(settings=settings)
    with pytest.raises(ValidationError, match="needed: Ensure this value has at least 4") as refused:
        double(settings={"needed": "m08"})
    assert "m08" not in str(refused.value)


def test_a_mark_is_no_secret_where_the_setting_is_none(nagra: HeadEnd, two_secrets: None) -> None:
    double(settings={"needed": MARKER, "plain": "sealed:00000000"})
    assert stored().settings_with_secrets()["plain"] == "sealed:00000000"


# Two at once


def test_a_form_that_was_opened_before_keeps_the_secret_that_came_meanwhile(nagra: HeadEnd) -> None:
    double()
    opened = stored()
    set_to(OTHER)
    opened.settings["refused_account"] = "somebody"
    opened.save()
    assert stored().secrets() == {"passphrase": OTHER}
    assert stored().settings_with_secrets()["passphrase"] == OTHER
    assert stored().settings["refused_account"] == "somebody"


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"), [("", OTHER, OTHER), (MARKER, "", ""), (MARKER, OTHER, OTHER)]
)
def test_whatever_happened_to_a_secret_that_was_not_touched(
    nagra: HeadEnd, before: str, meanwhile: str, after: str
) -> None:
    double(settings={"passphrase": before})
    opened = stored()
    set_to(meanwhile)
    opened.settings["refused_account"] = "x"
    opened.full_clean()  # as the page does, before it stores
    opened.save()
    assert stored().settings_with_secrets()["passphrase"] == after


def test_each_of_two_secrets_is_taken_over_by_itself(nagra: HeadEnd, two_secrets: None) -> None:
    double(settings={"needed": "needed-1", "spare": "spare-1"})
    one, other = stored(), stored()
    one.settings["needed"], other.settings["spare"] = "needed-2", "spare-2"
    one.full_clean()
    other.full_clean()
    one.save()
    other.save()
    assert stored().secrets() == {"needed": "needed-2", "spare": "spare-2"}
    assert stored().settings_with_secrets()["needed"] == "needed-2"


def test_what_is_saved_without_its_settings_leaves_them(nagra: HeadEnd) -> None:
    double()
    opened = stored()
    set_to(OTHER)
    opened.settings["passphrase"] = MARKER
    opened.display_name = "E"
    opened.save(update_fields=["display_name"])
    assert stored().settings_with_secrets()["passphrase"] == OTHER


# Disabled, or without its provider


def test_a_disabled_service_stores_nothing_in_the_clear(nagra: HeadEnd) -> None:
    double(enabled=False)
    assert MARKER not in everything_stored()
    set_to(OTHER)
    assert OTHER not in everything_stored()
    service = stored()
    service.settings["pasphrase"] = MARKER
    with pytest.raises(ValidationError, match="pasphrase: dummy has no such setting"):
        service.save()


def test_without_its_provider_nothing_is_taken_and_nothing_is_lost(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    double(enabled=False)
    dummy = strategies()["dummy"]
    monkeypatch.delitem(strategies(), "dummy")
    service = stored()
    service.display_name = "E"
    service.save()
    service.settings["passphrase"] = OTHER
    with pytest.raises(ValidationError, match="There is no strategy 'dummy' here"):
        service.save()
    monkeypatch.setitem(strategies(), "dummy", dummy)
    assert stored().settings_with_secrets()["passphrase"] == MARKER
    assert OTHER not in everything_stored()


# Copied, and without the key


def test_what_was_copied_from_another_tenant_does_not_open(
    nagra: HeadEnd, sunrise: HeadEnd, logged: Callable[[], str]
) -> None:
    stolen = double()
    other = double("sunrise", settings={"passphrase": OTHER})
    set_directly(other, sealed_secrets=stolen.sealed_secrets)
    with pytest.raises(DecryptionFailed):
        stored("sunrise").secrets()
    assert sign_on(MARKER, sunrise) == 403
    assert "passphrase: No encryption key opens what is stored: enter it again." in logged()
    assert sign_on(MARKER, nagra) == 200


@pytest.mark.parametrize("strategy", ["dummy2", "operator_token"])
def test_nor_does_what_was_sealed_for_another_strategy(nagra: HeadEnd, strategy: str) -> None:
    service = double()
    service.strategy = strategy
    with pytest.raises(DecryptionFailed):
        service.secrets()


def test_a_service_whose_secret_does_not_open_is_not_offered_and_told(nagra: HeadEnd, settings: Any) -> None:
    double()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.reread("nagra")
    assert NAME not in nagra.discover().content.decode()
    found = run_checks(tags=[Tags.database], databases=["default"])
    told = [(one.id, one.msg) for one in found]
    why = "none of the 1 encryption keys opens it."
    assert ("tenants.E001", f"tenant 'nagra', service '{NAME}': {why}") in told


def test_a_secret_that_does_not_open_can_be_withdrawn_and_is_healed_by_a_new_one(
    nagra: HeadEnd, admin_client: Client, settings: Any
) -> None:
    service = double()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(ValidationError, match="passphrase: No encryption key opens what is stored"):
        stored().save()
    page = admin_client.post(change(service), fields())
    assert list(errors(page)) == ["settings-passphrase"]
    assert "No encryption key opens what is stored: enter it again." in text_of(page)
    admin_client.post(f"{LIST}{service.pk}/disable/")
    assert not stored().enabled
    assert admin_client.post(change(service), fields(session_token_ttl="77")).status_code == 302
    assert stored().settings["session_token_ttl"] == 77
    assert "Not done." in text_of(admin_client.post(f"{LIST}{service.pk}/enable/", follow=True))
    assert admin_client.post(change(service), fields(passphrase=OTHER)).status_code == 302
    assert stored().secrets() == {"passphrase": OTHER}
    admin_client.post(f"{LIST}{service.pk}/enable/")
    snapshot.reread("nagra")
    assert sign_on(OTHER, nagra) == 200
    set_directly(service, sealed_secrets=b"\x01 no such thing")
    admin_client.post(f"{LIST}{service.pk}/disable/")
    assert not stored().enabled


def test_a_secret_that_does_not_open_is_not_measured(
    nagra: HeadEnd, admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark is shorter than some secrets must be."""

    class Settings(SessionTokenSettings):
        passphrase = SecretField(destination_settings=(), min_length=20)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)
    service = double(enabled=False)
    mark = service.settings["passphrase"]
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert admin_client.post(change(service), fields(session_token_ttl="77")).status_code == 302
    service = stored()
    service.settings["session_token_ttl"] += 1
    service.save()
    assert stored().settings == {"session_token_ttl": 78, "passphrase": mark}
    page = admin_client.post(change(service), fields(passphrase="too short"))
    assert list(errors(page)) == ["settings-passphrase"]
    service.settings["passphrase"] = "too short"
    with pytest.raises(ValidationError, match="passphrase: Ensure this value has at least 20"):
        service.save()


def test_a_secret_that_does_not_open_can_be_removed(nagra: HeadEnd, settings: Any) -> None:
    double()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    set_to("")
    assert stored().sealed_secrets is None


def test_reseal_moves_them_to_the_newest_key(nagra: HeadEnd, settings: Any) -> None:
    double()
    double(name="Without", settings={})
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    out = io.StringIO()
    call_command("reseal", stdout=out)
    assert out.getvalue() == "3 resealed\n", "the key, the signing key, and the one service with a secret"
    assert encrypted_with_newest_key(bytes(stored().sealed_secrets or b""))
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.reread("nagra")
    assert sign_on(MARKER, nagra) == 200
    set_directly(stored(), sealed_secrets=b"\x01 no such thing")
    with pytest.raises(CommandError, match=f"no encryption key opens: nagra/{NAME}"):
        call_command("reseal")


# Declared a secret later


def test_a_setting_that_became_a_secret_later_works_and_is_sealed_when_it_is_saved(nagra: HeadEnd) -> None:
    service = double(settings={})
    set_directly(service, settings={**service.settings, "passphrase": MARKER})
    assert sign_on(MARKER, nagra) == 200
    stored().save()
    assert is_placeholder(stored().settings["passphrase"])
    snapshot.reread("nagra")
    assert sign_on(MARKER, nagra) == 200


# The pages of staff


def change(service: Service) -> str:
    return f"{LIST}{service.pk}/change/"


def fields(**settings: str) -> dict[str, str]:
    """What the page of the double sends; `enabled` and `remove` are its boxes."""
    sent = {"name": NAME, "display_name": "D", "logo": "", "settings-session_token_ttl": "300"}
    boxes = {"enabled": "enabled", "remove": "settings-passphrase-remove"}
    return sent | {boxes.get(name, f"settings-{name}"): value for name, value in settings.items()}


def errors(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.context["adminform"].form.errors
    return found


def text_of(page: Any) -> str:
    text: str = page.content.decode()
    return text


STEP_TWO = LIST + "add/?tenant=nagra&strategy=dummy"


def test_no_page_shows_a_secret(nagra: HeadEnd, admin_client: Client, logged: Callable[[], str]) -> None:
    pages = [
        admin_client.get(STEP_TWO),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER, session_token_ttl="x")),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER) | {"name": ""}),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER, enabled="on"), follow=True),
    ]
    service = stored()
    address = change(service)
    pages += [
        admin_client.post(address, fields(passphrase=OTHER, session_token_ttl="x")),
        admin_client.post(address, fields(passphrase=OTHER, remove="on")),
        admin_client.post(address, fields(passphrase=OTHER * 100)),
        admin_client.post(address, fields(passphrase=OTHER), follow=True),
        admin_client.get(address),
        person("auditor", "nagra").get(address),
        *(
            admin_client.get(f"{LIST}{service.pk}/{name}/")
            for name in ("history", "disable", "revoke-issued")
        ),
        admin_client.get(LIST),
        admin_client.get("/admin/"),
    ]
    shown = "".join(text_of(page) + str(page.headers) for page in pages) + logged() + everything_stored()
    for secret in (MARKER, OTHER):
        assert secret not in shown
    assert stored().secrets() == {"passphrase": OTHER}
    assert stored().settings["passphrase"] not in "".join(text_of(page) for page in pages)
    assert [page.status_code for page in pages] == [200] * len(pages)


def test_left_empty_it_is_kept(nagra: HeadEnd, admin_client: Client) -> None:
    service = double()
    page = admin_client.get(change(service))
    assert "It is set, and never shown: leave this empty to keep it." in text_of(page)
    assert 'type="password" name="settings-passphrase"' in text_of(page)
    assert admin_client.post(change(service), fields(session_token_ttl="77", enabled="on")).status_code == 302
    assert (stored().settings["session_token_ttl"], stored().secrets()) == (77, {"passphrase": MARKER})
    assert stored().settings["passphrase"] == service.settings["passphrase"]


def test_it_is_changed_and_removed(nagra: HeadEnd, admin_client: Client) -> None:
    service = double()
    assert admin_client.post(change(service), fields(passphrase=OTHER)).status_code == 302
    assert stored().secrets() == {"passphrase": OTHER}
    assert list(errors(admin_client.post(change(service), fields(passphrase=OTHER, remove="on"))))
    assert admin_client.post(change(service), fields(remove="on")).status_code == 302
    assert (stored().settings["passphrase"], stored().sealed_secrets) == ("", None)
    assert "settings-passphrase-remove" not in text_of(admin_client.get(change(service)))


def test_what_was_entered_beside_a_mistake_is_asked_for_again(nagra: HeadEnd, admin_client: Client) -> None:
    service = double()
    page = admin_client.post(change(service), fields(passphrase=OTHER, session_token_ttl="x"))
    assert sorted(errors(page)) == ["settings-passphrase", "settings-session_token_ttl"]
    assert "Enter it again: it is not taken before all else is right." in text_of(page)
    page = admin_client.post(change(service), fields(session_token_ttl="x"))
    assert list(errors(page)) == ["settings-session_token_ttl"]
    assert stored().secrets() == {"passphrase": MARKER}


def test_one_that_is_needed_is_demanded_once(nagra: HeadEnd, admin_client: Client, two_secrets: None) -> None:
    page = admin_client.post(STEP_TWO, fields())
    assert list(errors(page)) == ["settings-needed"]
    assert admin_client.post(STEP_TWO, fields(needed=MARKER)).status_code == 302
    assert admin_client.post(change(stored()), fields()).status_code == 302
    assert stored().secrets() == {"needed": MARKER}
    page = admin_client.get(change(stored()))
    assert "settings-needed-remove" not in text_of(page)


def test_a_secret_of_the_form_of_a_mark_is_refused(nagra: HeadEnd, admin_client: Client) -> None:
    page = admin_client.post(STEP_TWO, fields(passphrase="sealed:0123abcd"))
    assert list(errors(page)) == ["settings-passphrase"]
    assert "sealed:0123abcd" not in text_of(page)


def test_who_may_only_look_sees_whether_it_is_set(nagra: HeadEnd) -> None:
    service = double()
    auditor = person("auditor", "nagra")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Set" in contents
    set_to("")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Not set" in contents


def rows_of(page: Any) -> list[Any]:
    return [field for fieldset in page.context["adminform"] for line in fieldset for field in line]


def test_the_history_tells_that_it_changed(nagra: HeadEnd, admin_client: Client) -> None:
    service = double()
    for passphrase in (OTHER, ""):
        set_to(passphrase)
    page = admin_client.get(f"{LIST}{service.pk}/history/")
    told = [(one.before, one.after) for change in page.context["changes"] for one in change.differences]
    assert [one for one in told if "set" in one or "set to another" in one] == [
        ("set", "—"),
        ("set", "set to another"),
        ("—", "set"),
    ]
    assert "sealed:" not in text_of(page)


# apply and export


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., list[str]]:
    def run(document: Any, *options: str) -> list[str]:
        path = tmp_path / "tenants.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        out = io.StringIO()
        call_command("apply", str(path), *options, stdout=out)
        return out.getvalue().splitlines()

    return run


def document(passphrase: Any, **changes: Any) -> dict[str, Any]:
    settings = {} if passphrase is ... else {"passphrase": passphrase}
    service = {"name": NAME, "strategy": "dummy", "display_name": "D", "enabled": True, "settings": settings}
    return {"tenants": [{"id": "nagra", "name": "Nagra", "services": [service | changes]}]}


def export() -> str:
    out = io.StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        MARKER,
        {"env": "A_SECRET"},
        {"file": "secret.txt"},
        {"text": MARKER},
        {"base64": "bWFya2VyMDgxNS1vZi1hLXNlY3JldA=="},
    ],
    ids=["plain", "env", "file", "text", "base64"],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_file_gives_a_secret_in_any_form_and_again_is_nothing_to_do(
    db: None,
    apply: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: Any,
    enabled: bool,
) -> None:
    monkeypatch.setenv("A_SECRET", MARKER)
    (tmp_path / "secret.txt").write_text(MARKER + "\n")
    assert apply(document(given, enabled=enabled)) == ["+ tenant nagra", f"+ service nagra/{NAME}"]
    assert stored().secrets() == {"passphrase": MARKER}
    assert apply(document(given, enabled=enabled)) == ["nothing to do"]
    assert MARKER not in everything_stored()
    told = apply(document(OTHER, enabled=enabled))
    assert told == [f"~ service nagra/{NAME}: settings.passphrase changed"]
    assert stored().secrets() == {"passphrase": OTHER}
    monkeypatch.delenv("A_SECRET")
    assert apply(document({"env": "A_SECRET"}, enabled=enabled)) == ["nothing to do"]
    assert apply(document(..., enabled=enabled)) == [f"~ service nagra/{NAME}: settings.passphrase changed"]
    assert stored().sealed_secrets is None, "the settings of a service are given as a whole"


@pytest.mark.parametrize(
    ("given", "where", "why"),
    [
        ({"env": "NOT_SET_HERE"}, ".env", "the variable NOT_SET_HERE is not set"),
        (815, "", "must be one of {env: NAME}"),
        ([MARKER], "", "must be one of {env: NAME}"),
        ({MARKER: MARKER}, "", "must be one of {env: NAME}"),
        ({"env": MARKER}, ".env", "must be the name of a variable"),
        ({"file": "missing.txt"}, ".file", "cannot read missing.txt"),
        ({"base64": MARKER + "!"}, "", "The secret is not valid base64"),
        ({"base64": "//8="}, "", "is not UTF-8 text"),
        ("sealed:00000000", "", "Nothing is stored: enter it."),
        (MARKER * 100, "", "Ensure this value has at most 1024 characters"),
    ],
)
def test_a_mistake_has_a_place_and_repeats_nothing(
    db: None, apply: Callable[..., list[str]], given: Any, where: str, why: str
) -> None:
    with pytest.raises(CommandError) as refused:
        apply(document(given))
    message = str(refused.value)
    assert message.startswith(f"tenants[0].services[0].settings.passphrase{where}: {why}")
    assert MARKER not in message
    assert not Tenant.objects.exists()


def test_a_dry_run_tells_no_more(nagra: HeadEnd, apply: Callable[..., list[str]]) -> None:
    double()
    assert apply(document(OTHER), "--dry-run")[0] == f"~ service nagra/{NAME}: settings.passphrase changed"
    assert stored().secrets() == {"passphrase": MARKER}


def test_a_file_heals_what_does_not_open(
    nagra: HeadEnd, apply: Callable[..., list[str]], settings: Any
) -> None:
    double()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert apply(export()) == ["nothing to do"]
    with pytest.raises(CommandError, match=r"settings\.passphrase: No encryption key opens what is stored"):
        apply(document({"env": "NOT_SET_HERE"}))
    assert apply(document({"env": "NOT_SET_HERE"}, enabled=False)) == [
        f"~ service nagra/{NAME}: enabled on -> off"
    ]
    assert len(apply(document(MARKER))) == 1
    assert stored().secrets() == {"passphrase": MARKER}


def test_an_export_refers_to_the_secret_and_is_nothing_to_do(
    nagra: HeadEnd, apply: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    double()
    double(name="another-one", settings={"passphrase": ""})
    text = export()
    assert MARKER not in text
    assert "sealed:" not in text
    (tenant,) = yaml.safe_load(text)["tenants"]
    settings = {service["name"]: service["settings"] for service in tenant["services"]}
    variable = settings[NAME]["passphrase"]["env"]
    assert variable.startswith("AGS_SECRET__NAGRA__DOUBLE__PASSPHRASE")
    assert settings["another-one"]["passphrase"] == ""
    assert apply(text) == ["nothing to do"]
    monkeypatch.setenv(variable, MARKER)
    assert apply(text) == ["nothing to do"]
    Service.objects.for_tenant("nagra").filter(name=NAME).delete()
    assert apply(text) == [f"+ service nagra/{NAME}"]
    assert stored().secrets() == {"passphrase": MARKER}


def test_so_does_that_of_a_service_whose_provider_is_gone(
    nagra: HeadEnd, apply: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    double(enabled=False)
    monkeypatch.delitem(strategies(), "dummy")
    text = export()
    assert "sealed:" not in text
    assert apply(text) == ["nothing to do"]
