"""No change of a service sends a stored secret to another server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from providers.registry import strategies
from tenants.models import Service
from tenants.services.check import check_service
from tests.support.change_form import form_version
from tests.support.clients import HeadEnd
from tests.support.configuration import ENCRYPTION_KEY as OLD
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.secret_destinations import (
    ELSEWHERE,
    NAME,
    REENTER,
    change_address,
    change_in_code,
    complete,
    create_service,
    post,
    private_key,
    staff_client,
    stored,
)
from tests.support.upstream.https import HTTPSServer

# Attempts to send the secret to another server


@pytest.fixture
def elsewhere() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def test_changing_the_address_and_checking_does_not_send_the_secret(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    client = staff_client()
    assert post(client, {"address": f"{elsewhere.url}/introspect"}).status_code == 200
    response = client.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert response.status_code == 200
    assert not elsewhere.requests
    assert post(client, {"address": f"{elsewhere.url}/x", "client_secret": "mine"}).status_code == 302
    client.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert len(elsewhere.requests) == 1, "a secret that is entered again is sent"


def test_unsaved_settings_are_not_checked_with_the_stored_secret(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    introspection.settings["address"] = f"{elsewhere.url}/introspect"
    messages = [result.message for result in check_service(introspection)]
    assert messages == [f"Setting client_secret: Introspection endpoint has changed. {REENTER}"]
    introspection.settings["client_secret"] = "mine"
    list(check_service(introspection))
    assert len(elsewhere.requests) == 1


def test_a_copy_of_a_service_cannot_send_the_secret_elsewhere(introspection: Service) -> None:
    copy = stored()
    copy.pk, copy.name, copy._state.adding = None, "Copy", True
    copy.settings["address"] = ELSEWHERE
    with pytest.raises(ValidationError, match=REENTER):
        copy.save()
    with pytest.raises(ValidationError, match=REENTER):
        copy.settings_with_secrets()


@pytest.mark.parametrize("enabled", [True, False])
def test_settings_of_the_history_cannot_be_restored_with_the_current_secret(
    introspection: Service, enabled: bool, tmp_path: Path
) -> None:
    assert change_in_code({"address": ELSEWHERE, "client_secret": "current"}, tmp_path) == {}
    row = stored()
    before = row.history.earliest()
    restored = Service(
        pk=row.pk,
        tenant_id="nagra",
        name=NAME,
        strategy=row.strategy,
        display_name="x",
        enabled=enabled,
        settings=before.settings,
        sealed_secrets=row.sealed_secrets,
    )
    with pytest.raises(ValidationError, match="client_secret: No secret is stored: enter it"):
        restored.save()
    row.settings = before.settings
    with pytest.raises(ValidationError, match=REENTER):
        row.save()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    "changes", [{"strategy": "dummy"}, {"tenant_id": "sunrise"}], ids=["strategy", "tenant"]
)
def test_tenant_and_strategy_cannot_be_changed(
    introspection: Service, sunrise: HeadEnd, changes: dict[str, str], enabled: bool
) -> None:
    Service.unscoped.filter(pk=introspection.pk).update(enabled=enabled)
    service = stored()
    for name, value in changes.items():
        setattr(service, name, value)
    with pytest.raises(ValidationError, match="Tenant and strategy cannot be changed"):
        service.save()


def test_a_placeholder_does_not_restore_a_secret_that_was_removed_while_undecryptable(
    nagra: HeadEnd, settings: Any, tmp_path: Path
) -> None:
    strategy = strategies()["operator_login"]
    create_service(strategy, **complete(strategy), authentication="basic")
    Service.unscoped.update(enabled=False)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert (
        change_in_code({"secret": None, "authentication": "none", "private_key": private_key()}, tmp_path)
        == {}
    )
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    assert change_in_code({"secret": "sealed:00000000", "address": ELSEWHERE}, tmp_path)["secret"]


# Concurrent changes

STALE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the previous address": ({"address": ELSEWHERE, "client_secret": "for elsewhere"}, {"clock_skew": 1}),
    "a third address": (
        {"address": ELSEWHERE, "client_secret": "for elsewhere"},
        {"address": "https://third.example/"},
    ),
    "another address with a new secret": ({"client_secret": "new"}, {"address": ELSEWHERE}),
    "the same address with a new secret": ({"client_secret": "new"}, {"clock_skew": 1}),
}


@pytest.mark.parametrize(("concurrent", "changes"), STALE.values(), ids=STALE)
def test_a_stale_row_cannot_send_a_concurrently_changed_secret_elsewhere(
    introspection: Service, concurrent: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    stale = stored()
    assert change_in_code(concurrent, tmp_path) == {}
    current = stored()
    stale.settings |= changes
    for _ in range(2):  # a second attempt fails too
        with pytest.raises(ValidationError, match="Changed by a command at "):
            stale.save()
    assert stored().settings == current.settings
    assert stored().secrets() == current.secrets()


def test_a_stale_admin_form_is_rejected_with_the_reason(introspection: Service, admin_client: Client) -> None:
    stale = {"address": introspection.settings["address"]}
    version = form_version(admin_client, change_address(introspection))
    assert post(admin_client, {"address": ELSEWHERE, "client_secret": "for elsewhere"}).status_code == 302
    page = post(admin_client, stale, version).content.decode()
    assert f"Introspection endpoint has changed. {REENTER}" in page
    assert "Changed by admin at " in page
    assert stored().settings["address"] == ELSEWHERE
