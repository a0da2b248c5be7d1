"""`manage.py apply` to rows that exist: what cannot be changed, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tenants.config_file.secret_refs import SECRET_FILE_MAX_LENGTH
from tenants.models import Service
from tests.support.clients import SERVICE, HeadEnd
from tests.support.configuration_files import (
    KEY_0,
    SECRET,
    SERVICE_0,
    at_secret,
    key,
    rows,
    service,
    tenant,
)
from tests.support.operators import add_key


@pytest.mark.django_db
class TestImmutableValues:
    def error(self, apply: Callable[..., list[str]], document: Any) -> str:
        before = rows()
        with pytest.raises(CommandError) as raised:
            apply(document)
        assert rows() == before
        return str(raised.value)

    def test_the_secret(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, at_secret({"text": SECRET + "!"}))
        assert message == f"{KEY_0}.secret: differs from the stored secret: create a new key to rotate"

    def test_the_algorithm(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, tenant(keys=[key(algorithm="HS384")]))
        assert message == f"{KEY_0}.algorithm: cannot be changed: this key uses HS256"

    def test_the_state_of_a_revoked_key(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant(keys=[key(state="revoked")]))
        assert apply(tenant(keys=[key(state="revoked")])) == ["nothing to do"]
        message = self.error(apply, tenant())
        assert message == f"{KEY_0}.state: A revoked key cannot be reactivated: create a new one."

    def test_the_strategy_of_a_service(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, tenant(services=[service(strategy="dummy", settings=None)]))
        assert message == f"{SERVICE_0}.strategy: cannot be changed: this service uses operator_token"

    def test_a_stored_secret_that_cannot_be_decrypted_is_reported(
        self, apply: Callable[..., list[str]], settings: Any
    ) -> None:
        apply(tenant())
        settings.AGS_ENCRYPTION_KEYS = (bytes(range(32, 64)),)
        message = self.error(apply, tenant())
        assert message == f"{KEY_0}.secret: the stored secret cannot be decrypted"


@pytest.mark.django_db
def test_the_secret_of_an_existing_key_is_optional(apply: Callable[..., list[str]]) -> None:
    apply(tenant())
    assert apply(tenant(keys=[key(secret=None)])) == ["nothing to do"]
    assert apply(at_secret({"env": "NOT_SET"})) == ["nothing to do"]


@pytest.mark.django_db
def test_a_large_secret_file_is_not_read_completely(apply: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ab" * SECRET_FILE_MAX_LENGTH)
    with pytest.raises(CommandError, match=f"this one has {SECRET_FILE_MAX_LENGTH}"):
        apply(at_secret({"file": "secret"}))


@pytest.mark.django_db
def test_a_service_whose_provider_is_not_installed_can_be_kept_and_disabled(
    apply: Callable[..., list[str]], nagra: HeadEnd
) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone", settings={"old": 1})
    unchanged = {"name": SERVICE, "strategy": "gone", "enabled": True, "settings": {"old": 1}}
    assert apply(tenant(services=[unchanged], keys=[])) == ["nothing to do"]
    assert apply(tenant(services=[unchanged | {"enabled": False}], keys=[])) == [
        "~ service nagra/Customer Auth Service: enabled on -> off"
    ]
    with pytest.raises(CommandError, match=r"\.strategy: The strategy 'gone' is not installed"):
        apply(tenant(services=[unchanged], keys=[]))


@pytest.mark.django_db
def test_a_disabled_service_with_invalid_settings_can_be_kept(
    apply: Callable[..., list[str]], nagra: HeadEnd
) -> None:
    Service.objects.for_tenant("nagra").update(enabled=False, settings={"old": 1})
    unchanged = {"name": SERVICE, "enabled": False, "settings": {"old": 1}}
    assert apply(tenant(services=[unchanged], keys=[])) == ["nothing to do"]
    with pytest.raises(CommandError, match=r"\.settings\.old: operator_token has no such setting"):
        apply(tenant(services=[unchanged | {"enabled": True}], keys=[]))


@pytest.mark.django_db
def test_the_same_kid_and_service_name_of_another_tenant_are_not_changed(
    apply: Callable[..., list[str]], sunrise: HeadEnd
) -> None:
    add_key(HeadEnd("sunrise", "key-1", bytes(range(50, 90))))
    before = [row for row in rows() if "sunrise" in (row["id"], row.get("tenant_id"))]
    assert len(apply(tenant())) == 3
    assert [row for row in rows() if "sunrise" in (row["id"], row.get("tenant_id"))] == before


def test_a_missing_file_is_reported(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"gone\.yaml: No such file or directory"):
        call_command("apply", str(tmp_path / "gone.yaml"))
