"""Secret settings: always stored encrypted, available in plain text only to the strategy, never shown."""

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

from ags.server.logs import JSONFormatter, TextFormatter
from providers.contract import SecretField, SessionTokenSettings
from providers.registry import strategies
from tenants.models import Service, Tenant
from tenants.secrets.encryption import DecryptionFailed, is_encrypted_with_newest_key
from tenants.secrets.settings import is_placeholder
from tenants.snapshot import snapshot
from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.configuration import ENCRYPTION_KEY as OLD
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.staff import person

MARKER = "marker0815-of-a-secret"
OTHER = "marker4711-of-another"
NAME = "Double"
LIST = "/admin/tenants/service/"


def create_service(tenant: str = "nagra", **changes: Any) -> Service:
    """Create a service with the dummy strategy and a passphrase."""
    fields = {"name": NAME, "strategy": "dummy", "display_name": "D", "enabled": True} | changes
    service = Service(tenant_id=tenant, **{"settings": {"passphrase": MARKER}, **fields})
    service.save()
    snapshot.invalidate(tenant)
    return service


def stored(tenant: str = "nagra") -> Service:
    return Service.objects.for_tenant(tenant).get(name=NAME)


def set_directly(service: Service, **columns: Any) -> None:
    Service.unscoped.filter(pk=service.pk).update(**columns)
    snapshot.invalidate(service.tenant_id)


def sign_on(passphrase: str | None, head_end: HeadEnd) -> int:
    """Request a session token with that passphrase; return the status code."""
    parameters = [{"name": "Account", "value": "somebody"}]
    if passphrase is not None:
        parameters.append({"name": "Passphrase", "value": passphrase})
    status: int = head_end.post({"parameters": parameters}, x_auth_service_id=NAME).status_code
    return status


def dump_database() -> str:
    """Return the content of all tables as text."""
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
        formats: list[logging.Formatter] = [JSONFormatter(), TextFormatter()]
        return "\n".join(formatter.format(record) for record in caplog.records for formatter in formats)

    return lines


@pytest.fixture
def two_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy with a required and an optional secret."""

    class Settings(SessionTokenSettings):
        required_secret = SecretField(destination_settings=(), min_length=4)
        optional_secret = SecretField(destination_settings=(), required=False)
        plain = forms.CharField(required=False)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)


# The model


def test_the_strategy_receives_the_secret(nagra: HeadEnd) -> None:
    create_service()
    assert [sign_on(passphrase, nagra) for passphrase in (MARKER, OTHER, "", None)] == [200, 401, 401, 401]


def test_a_placeholder_and_the_encrypted_secret_are_stored(nagra: HeadEnd, logged: Callable[[], str]) -> None:
    service = create_service()
    assert is_placeholder(service.settings["passphrase"])
    assert stored().settings == service.settings
    assert stored().secrets() == {"passphrase": MARKER}
    assert MARKER not in dump_database()
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    assert tenant.services[NAME].settings["passphrase"] == MARKER
    assert MARKER not in repr(tenant) + repr(tenant.services[NAME]) + repr(stored().__dict__)
    out = io.StringIO()
    call_command("dumpdata", "tenants", stdout=out)
    assert MARKER not in out.getvalue()
    assert "historicalservice" in out.getvalue()
    assert MARKER not in logged()


def test_the_placeholder_changes_only_with_the_secret(nagra: HeadEnd) -> None:
    first = create_service().settings["passphrase"]
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
    placeholders = {record.settings["passphrase"] for record in stored().history.all()}
    assert placeholders == {first, service.settings["passphrase"]}
    assert not hasattr(stored().history.first(), "sealed_secrets")


@pytest.mark.parametrize("empty", ["", None])
def test_an_optional_secret_can_be_omitted_and_removed(nagra: HeadEnd, empty: Any) -> None:
    create_service(settings={"passphrase": empty})
    assert stored().sealed_secrets is None
    assert sign_on(None, nagra) == 200
    set_passphrase(MARKER)
    set_passphrase(empty)
    assert (stored().settings["passphrase"], stored().sealed_secrets) == ("", None)
    assert sign_on(None, nagra) == 200


def set_passphrase(text: Any) -> None:
    service = stored()
    service.settings["passphrase"] = text
    service.save()
    snapshot.invalidate("nagra")


def test_a_placeholder_keeps_the_stored_secret_if_there_is_one(nagra: HeadEnd) -> None:
    with pytest.raises(ValidationError, match="passphrase: No secret is stored: enter it"):
        create_service(settings={"passphrase": "sealed:00000000"})
    placeholder = create_service().settings["passphrase"]
    set_passphrase("sealed:00000000")
    assert stored().settings["passphrase"] == placeholder
    assert stored().secrets() == {"passphrase": MARKER}


def test_a_required_secret_is_required(nagra: HeadEnd, two_secrets: None) -> None:
    for settings in ({}, {"required_secret": ""}, {"required_secret": None}):
        with pytest.raises(ValidationError, match=r"required_secret: This field is required\."):
            create_service(settings=settings)
    with pytest.raises(ValidationError, match="required_secret: Ensure this value has at least 4") as raised:
        create_service(settings={"required_secret": "m08"})
    assert "m08" not in str(raised.value)


def test_a_placeholder_in_an_ordinary_setting_is_plain_text(nagra: HeadEnd, two_secrets: None) -> None:
    create_service(settings={"required_secret": MARKER, "plain": "sealed:00000000"})
    assert stored().settings_with_secrets()["plain"] == "sealed:00000000"


# Concurrent changes


@pytest.mark.parametrize(("before", "concurrent"), [("", OTHER), (MARKER, ""), (MARKER, OTHER)])
def test_a_concurrent_change_of_a_secret_is_kept(nagra: HeadEnd, before: str, concurrent: str) -> None:
    create_service(settings={"passphrase": before})
    stale = stored()
    set_passphrase(concurrent)
    stale.settings["refused_account"] = "x"
    for _ in range(2):  # a second attempt fails too
        with pytest.raises(ValidationError, match="Changed by a command at "):
            stale.save()
    assert stored().settings_with_secrets()["passphrase"] == concurrent
    assert stored().settings["refused_account"] != "x"


def test_a_concurrent_encryption_with_another_key_is_kept(nagra: HeadEnd, settings: Any) -> None:
    create_service()
    stale = stored()
    settings.AGS_ENCRYPTION_KEYS = (NEW, *settings.AGS_ENCRYPTION_KEYS)
    stored().reencrypt()
    stale.display_name = "E"
    with pytest.raises(ValidationError, match="Changed by a command at "):
        stale.save()
    assert is_encrypted_with_newest_key(bytes(stored().sealed_secrets or b""))


def test_a_save_without_settings_in_update_fields_does_not_change_them(nagra: HeadEnd) -> None:
    create_service()
    stale = stored()
    set_passphrase(OTHER)
    stale.settings["passphrase"] = MARKER
    stale.display_name = "E"
    stale.save(update_fields=["display_name"])
    assert stored().settings_with_secrets()["passphrase"] == OTHER


# Disabled services, and services without a provider


def test_the_secrets_of_a_disabled_service_are_encrypted(nagra: HeadEnd) -> None:
    create_service(enabled=False)
    assert MARKER not in dump_database()
    set_passphrase(OTHER)
    assert OTHER not in dump_database()
    service = stored()
    service.settings["pasphrase"] = MARKER
    with pytest.raises(ValidationError, match="pasphrase: dummy has no such setting"):
        service.save()


def test_without_the_provider_settings_cannot_change_and_are_not_lost(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_service(enabled=False)
    dummy = strategies()["dummy"]
    monkeypatch.delitem(strategies(), "dummy")
    service = stored()
    service.display_name = "E"
    service.save()
    service.settings["passphrase"] = OTHER
    with pytest.raises(ValidationError, match="The strategy 'dummy' is not installed"):
        service.save()
    monkeypatch.setitem(strategies(), "dummy", dummy)
    assert stored().settings_with_secrets()["passphrase"] == MARKER
    assert OTHER not in dump_database()


# Copied secrets, and secrets that cannot be decrypted


def test_a_secret_copied_from_another_tenant_cannot_be_decrypted(
    nagra: HeadEnd, sunrise: HeadEnd, logged: Callable[[], str]
) -> None:
    stolen = create_service()
    other = create_service("sunrise", settings={"passphrase": OTHER})
    set_directly(other, sealed_secrets=stolen.sealed_secrets)
    with pytest.raises(DecryptionFailed):
        stored("sunrise").secrets()
    assert sign_on(MARKER, sunrise) == 403
    assert "passphrase: The stored secret cannot be decrypted: enter it again." in logged()
    assert sign_on(MARKER, nagra) == 200


@pytest.mark.parametrize("strategy", ["dummy2", "operator_token"])
def test_a_secret_of_another_strategy_cannot_be_decrypted(nagra: HeadEnd, strategy: str) -> None:
    service = create_service()
    service.strategy = strategy
    with pytest.raises(DecryptionFailed):
        service.secrets()


def test_a_service_whose_secret_cannot_be_decrypted_is_not_offered_and_reported(
    nagra: HeadEnd, settings: Any
) -> None:
    create_service()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.invalidate("nagra")
    assert NAME not in nagra.discover().content.decode()
    messages = run_checks(tags=[Tags.database], databases=["default"])
    reason = "none of the 1 encryption keys decrypts the secret."
    expected = ("tenants.E001", f"tenant 'nagra', service '{NAME}': {reason}")
    assert expected in [(message.id, message.msg) for message in messages]


def test_a_service_whose_secret_cannot_be_decrypted_can_be_disabled_and_repaired(
    nagra: HeadEnd, admin_client: Client, settings: Any
) -> None:
    service = create_service()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(ValidationError, match="passphrase: The stored secret cannot be decrypted"):
        stored().save()
    page = submit_change(admin_client, change(service), fields())
    assert list(errors(page)) == ["settings-passphrase"]
    assert "The stored secret cannot be decrypted: enter it again." in text_of(page)
    admin_client.post(f"{LIST}{service.pk}/disable/")
    assert not stored().enabled
    assert submit_change(admin_client, change(service), fields(session_token_ttl="77")).status_code == 302
    assert stored().settings["session_token_ttl"] == 77
    assert "Not done." in text_of(admin_client.post(f"{LIST}{service.pk}/enable/", follow=True))
    assert submit_change(admin_client, change(service), fields(passphrase=OTHER)).status_code == 302
    assert stored().secrets() == {"passphrase": OTHER}
    admin_client.post(f"{LIST}{service.pk}/enable/")
    snapshot.invalidate("nagra")
    assert sign_on(OTHER, nagra) == 200
    set_directly(service, sealed_secrets=b"\x01 no such thing")
    admin_client.post(f"{LIST}{service.pk}/disable/")
    assert not stored().enabled


def test_a_secret_that_cannot_be_decrypted_is_not_validated(
    nagra: HeadEnd, admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The placeholder would fail a minimum length."""

    class Settings(SessionTokenSettings):
        passphrase = SecretField(destination_settings=(), min_length=20)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)
    service = create_service(enabled=False)
    placeholder = service.settings["passphrase"]
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert submit_change(admin_client, change(service), fields(session_token_ttl="77")).status_code == 302
    service = stored()
    service.settings["session_token_ttl"] += 1
    service.save()
    assert stored().settings == {"session_token_ttl": 78, "passphrase": placeholder}
    page = submit_change(admin_client, change(service), fields(passphrase="too short"))
    assert list(errors(page)) == ["settings-passphrase"]
    service.settings["passphrase"] = "too short"
    with pytest.raises(ValidationError, match="passphrase: Ensure this value has at least 20"):
        service.save()


def test_a_secret_that_cannot_be_decrypted_can_be_removed(nagra: HeadEnd, settings: Any) -> None:
    create_service()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    set_passphrase("")
    assert stored().sealed_secrets is None


def test_reseal_encrypts_them_with_the_newest_key(nagra: HeadEnd, settings: Any) -> None:
    create_service()
    create_service(name="Without", settings={})
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    out = io.StringIO()
    call_command("reseal", stdout=out)
    assert out.getvalue() == "3 re-encrypted\n", "the key, the signing key and the service with a secret"
    assert is_encrypted_with_newest_key(bytes(stored().sealed_secrets or b""))
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.invalidate("nagra")
    assert sign_on(MARKER, nagra) == 200
    set_directly(stored(), sealed_secrets=b"\x01 no such thing")
    with pytest.raises(CommandError, match=f"cannot be decrypted with any encryption key: nagra/{NAME}"):
        call_command("reseal")


# A setting that becomes a secret


def test_a_setting_that_became_a_secret_works_and_is_encrypted_with_the_next_save(nagra: HeadEnd) -> None:
    service = create_service(settings={})
    set_directly(service, settings={**service.settings, "passphrase": MARKER})
    assert sign_on(MARKER, nagra) == 200
    stored().save()
    assert is_placeholder(stored().settings["passphrase"])
    snapshot.invalidate("nagra")
    assert sign_on(MARKER, nagra) == 200


# The admin


def change(service: Service) -> str:
    return f"{LIST}{service.pk}/change/"


def fields(**settings: str) -> dict[str, str]:
    """Return the form data of the service; `enabled` and `remove` are checkboxes."""
    data = {"name": NAME, "display_name": "D", "logo": "", "settings-session_token_ttl": "300"}
    checkboxes = {"enabled": "enabled", "remove": "settings-passphrase-remove"}
    return data | {checkboxes.get(name, f"settings-{name}"): value for name, value in settings.items()}


def errors(page: Any) -> dict[str, Any]:
    form_errors: dict[str, Any] = page.context["adminform"].form.errors
    return form_errors


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
        submit_change(admin_client, address, fields(passphrase=OTHER, session_token_ttl="x")),
        submit_change(admin_client, address, fields(passphrase=OTHER, remove="on")),
        submit_change(admin_client, address, fields(passphrase=OTHER * 100)),
        submit_change(admin_client, address, fields(passphrase=OTHER), follow=True),
        admin_client.get(address),
        person("auditor", "nagra").get(address),
        *(
            admin_client.get(f"{LIST}{service.pk}/{name}/")
            for name in ("history", "disable", "revoke-issued")
        ),
        admin_client.get(LIST),
        admin_client.get("/admin/"),
    ]
    output = "".join(text_of(page) + str(page.headers) for page in pages) + logged() + dump_database()
    for secret in (MARKER, OTHER):
        assert secret not in output
    assert stored().secrets() == {"passphrase": OTHER}
    assert stored().settings["passphrase"] not in "".join(text_of(page) for page in pages)
    assert [page.status_code for page in pages] == [200] * len(pages)


def test_an_empty_field_keeps_the_secret(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    page = admin_client.get(change(service))
    assert "It is set. Leave this empty to keep it." in text_of(page)
    assert 'type="password" name="settings-passphrase"' in text_of(page)
    assert (
        submit_change(admin_client, change(service), fields(session_token_ttl="77", enabled="on")).status_code
        == 302
    )
    assert (stored().settings["session_token_ttl"], stored().secrets()) == (77, {"passphrase": MARKER})
    assert stored().settings["passphrase"] == service.settings["passphrase"]


def test_the_secret_can_be_changed_and_removed(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    assert submit_change(admin_client, change(service), fields(passphrase=OTHER)).status_code == 302
    assert stored().secrets() == {"passphrase": OTHER}
    assert list(errors(submit_change(admin_client, change(service), fields(passphrase=OTHER, remove="on"))))
    assert submit_change(admin_client, change(service), fields(remove="on")).status_code == 302
    assert (stored().settings["passphrase"], stored().sealed_secrets) == ("", None)
    assert "settings-passphrase-remove" not in text_of(admin_client.get(change(service)))


def test_a_secret_in_an_invalid_form_must_be_entered_again(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    page = submit_change(admin_client, change(service), fields(passphrase=OTHER, session_token_ttl="x"))
    assert sorted(errors(page)) == ["settings-passphrase", "settings-session_token_ttl"]
    assert "Enter it again: it was not saved, because of the other errors." in text_of(page)
    page = submit_change(admin_client, change(service), fields(session_token_ttl="x"))
    assert list(errors(page)) == ["settings-session_token_ttl"]
    assert stored().secrets() == {"passphrase": MARKER}


def test_a_required_secret_is_required_only_once(
    nagra: HeadEnd, admin_client: Client, two_secrets: None
) -> None:
    page = admin_client.post(STEP_TWO, fields())
    assert list(errors(page)) == ["settings-required_secret"]
    assert admin_client.post(STEP_TWO, fields(required_secret=MARKER)).status_code == 302
    assert submit_change(admin_client, change(stored()), fields()).status_code == 302
    assert stored().secrets() == {"required_secret": MARKER}
    page = admin_client.get(change(stored()))
    assert "settings-required_secret-remove" not in text_of(page)


def test_a_secret_that_looks_like_a_placeholder_is_rejected(nagra: HeadEnd, admin_client: Client) -> None:
    page = admin_client.post(STEP_TWO, fields(passphrase="sealed:0123abcd"))
    assert list(errors(page)) == ["settings-passphrase"]
    assert "sealed:0123abcd" not in text_of(page)


def test_view_permission_shows_whether_the_secret_is_set(nagra: HeadEnd) -> None:
    service = create_service()
    auditor = person("auditor", "nagra")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Set" in contents
    set_passphrase("")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Not set" in contents


def rows_of(page: Any) -> list[Any]:
    return [field for fieldset in page.context["adminform"] for line in fieldset for field in line]


def test_the_history_shows_that_the_secret_has_changed(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    for passphrase in (OTHER, ""):
        set_passphrase(passphrase)
    page = admin_client.get(f"{LIST}{service.pk}/history/")
    differences = [(one.before, one.after) for item in page.context["changes"] for one in item.differences]
    assert [one for one in differences if "set" in one or "set to another" in one] == [
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
    "passphrase",
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
def test_apply_accepts_every_kind_of_reference_and_is_idempotent(
    db: None,
    apply: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passphrase: Any,
    enabled: bool,
) -> None:
    monkeypatch.setenv("A_SECRET", MARKER)
    (tmp_path / "secret.txt").write_text(MARKER + "\n")
    assert apply(document(passphrase, enabled=enabled)) == ["+ tenant nagra", f"+ service nagra/{NAME}"]
    assert stored().secrets() == {"passphrase": MARKER}
    assert apply(document(passphrase, enabled=enabled)) == ["nothing to do"]
    assert MARKER not in dump_database()
    output = apply(document(OTHER, enabled=enabled))
    assert output == [f"~ service nagra/{NAME}: settings.passphrase changed"]
    assert stored().secrets() == {"passphrase": OTHER}
    monkeypatch.delenv("A_SECRET")
    assert apply(document({"env": "A_SECRET"}, enabled=enabled)) == ["nothing to do"]
    assert apply(document(..., enabled=enabled)) == [f"~ service nagra/{NAME}: settings.passphrase changed"]
    assert stored().sealed_secrets is None, "the settings of a service are replaced as a whole"


@pytest.mark.parametrize(
    ("passphrase", "location", "message"),
    [
        ({"env": "NOT_SET_HERE"}, ".env", "the variable NOT_SET_HERE is not set"),
        (815, "", "must be one of {env: NAME}"),
        ([MARKER], "", "must be one of {env: NAME}"),
        ({MARKER: MARKER}, "", "must be one of {env: NAME}"),
        ({"env": MARKER}, ".env", "must be the name of an environment variable"),
        ({"file": "missing.txt"}, ".file", "cannot read missing.txt"),
        ({"base64": MARKER + "!"}, "", "The secret is not valid base64"),
        ({"base64": "//8="}, "", "the decoded value is not UTF-8 text"),
        ("sealed:00000000", "", "No secret is stored: enter it."),
        (MARKER * 100, "", "Ensure this value has at most 1024 characters"),
    ],
)
def test_an_error_has_a_location_and_contains_no_secret(
    db: None, apply: Callable[..., list[str]], passphrase: Any, location: str, message: str
) -> None:
    with pytest.raises(CommandError) as raised:
        apply(document(passphrase))
    error = str(raised.value)
    assert error.startswith(f"tenants[0].services[0].settings.passphrase{location}: {message}")
    assert MARKER not in error
    assert not Tenant.objects.exists()


def test_a_dry_run_does_not_print_the_secret(nagra: HeadEnd, apply: Callable[..., list[str]]) -> None:
    create_service()
    assert apply(document(OTHER), "--dry-run")[0] == f"~ service nagra/{NAME}: settings.passphrase changed"
    assert stored().secrets() == {"passphrase": MARKER}


def test_apply_repairs_a_secret_that_cannot_be_decrypted(
    nagra: HeadEnd, apply: Callable[..., list[str]], settings: Any
) -> None:
    create_service()
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert apply(export()) == ["nothing to do"]
    with pytest.raises(CommandError, match=r"settings\.passphrase: The stored secret cannot be decrypted"):
        apply(document({"env": "NOT_SET_HERE"}))
    assert apply(document({"env": "NOT_SET_HERE"}, enabled=False)) == [
        f"~ service nagra/{NAME}: enabled on -> off"
    ]
    assert len(apply(document(MARKER))) == 1
    assert stored().secrets() == {"passphrase": MARKER}


def test_an_export_contains_a_reference_and_changes_nothing_when_applied(
    nagra: HeadEnd, apply: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_service()
    create_service(name="another-one", settings={"passphrase": ""})
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


def test_an_export_without_the_provider_changes_nothing_when_applied(
    nagra: HeadEnd, apply: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_service(enabled=False)
    monkeypatch.delitem(strategies(), "dummy")
    text = export()
    assert "sealed:" not in text
    assert apply(text) == ["nothing to do"]
