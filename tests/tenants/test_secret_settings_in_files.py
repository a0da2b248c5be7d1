"""Secret settings in configuration files: references that are resolved, and never exported."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from providers.registry import strategies
from tenants.models import Service, Tenant
from tests.support.clients import HeadEnd
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.secret_settings import (
    MARKER,
    NAME,
    OTHER,
    create_service,
    dump_database,
    stored,
)


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
