"""Secret settings: always stored encrypted, available in plain text only to the strategy, never shown."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client

from providers.contract import SecretField, SessionTokenSettings
from providers.registry import strategies
from tenants.secrets.encryption import DecryptionFailed, is_encrypted_with_newest_key
from tenants.secrets.service_secrets import is_placeholder
from tenants.snapshot import snapshot
from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.configuration import ENCRYPTION_KEY as OLD
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.secret_settings import (
    LIST,
    MARKER,
    NAME,
    OTHER,
    change,
    create_service,
    dump_database,
    errors,
    fields,
    set_directly,
    set_passphrase,
    sign_on,
    stored,
    text_of,
)

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
    assert out.getvalue() == "4 re-encrypted\n", "the key, both signing keys and the service with a secret"
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
