"""Rejected refreshes, the number of statements, and changes of the tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device
from tenants import snapshot as tenants_snapshot
from tenants.models import KeyState, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.database import get_verbs
from tests.support.refreshes import concurrent_refresh
from tests.support.responses import (
    ACCOUNT_CANCELLED,
    ACCOUNT_SUSPENDED,
    CORRELATION_ID,
    DEVICE_DISABLED,
    DEVICE_UNKNOWN,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    full_response,
)
from tests.support.sign_ons import age_sign_on, get_device, get_events, update_row

# Rejections


def set_account_status(status: str) -> Callable[[], None]:
    return lambda: update_row(Account, status=status)


def set_device_status(status: str) -> Callable[[], None]:
    return lambda: update_row(Device, status=status)


REJECTIONS: dict[str, tuple[Callable[[], None], Callable[[], None], dict[str, Any]]] = {
    "cancelled": (set_account_status("cancelled"), set_account_status("active"), ACCOUNT_CANCELLED),
    "suspended": (set_account_status("suspended"), set_account_status("active"), ACCOUNT_SUSPENDED),
    "the device is deleted": (set_device_status("deleted"), set_device_status("enabled"), DEVICE_UNKNOWN),
    "the device is disabled": (set_device_status("disabled"), set_device_status("enabled"), DEVICE_DISABLED),
    "the service is disabled": (
        lambda: update_row(Service, enabled=False),
        lambda: update_row(Service, enabled=True),
        SERVICE_NOT_AVAILABLE,
    ),
    "the tenant is disabled": (
        lambda: update_row(Tenant, enabled=False),
        lambda: update_row(Tenant, enabled=True),
        SERVICE_NOT_AVAILABLE,
    ),
}


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "undo", "expected"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_lasts_until_its_cause_is_removed(
    signed_on: ClientApp,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[], None],
    undo: Callable[[], None],
    expected: dict[str, Any],
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    used = signed_on.tokens["refresh_token"]
    signed_on.refresh()
    age_sign_on(60)
    reject()
    for token in (signed_on.tokens["refresh_token"], used):
        assert full_response(signed_on.refresh(token, x_correlation_id=CORRELATION_ID)) == expected
    assert get_events() == [], "use of a rejected token is not a sign of theft"
    undo()
    snapshot.invalidate("nagra")
    assert signed_on.refresh().status_code == 200


# SQL statements


def test_a_refresh_needs_at_most_two_statements_and_reuse_four(
    signed_on: ClientApp, stale_snapshots: None
) -> None:
    used = signed_on.tokens["refresh_token"]

    def statements(token: str, status: int) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert signed_on.refresh(token).status_code == status
        return get_verbs(captured)

    assert statements(used, 200) == ["SELECT", "UPDATE"]
    assert statements(used, 200) == ["SELECT"], "within the grace period"
    age_sign_on(11)
    assert statements(used, 401) == ["SELECT", "UPDATE", "INSERT", "INSERT"], (
        "the sign-on ends with an event, and a security event is recorded"
    )
    assert statements(used, 401) == ["SELECT"], "the sign-on has ended"


def test_a_request_is_retried_after_a_change_of_the_tenant(
    signed_on: ClientApp, stale_snapshots: None
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answer = signed_on.refresh()
    assert (answer.status_code, answer.json()["expires_in"]) == (200, 77)
    assert get_device().generation == 1


def test_constant_configuration_changes_are_a_503_and_use_nothing_up(
    signed_on: ClientApp,
) -> None:
    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert get_device().generation == 0
    assert signed_on.refresh().status_code == 200


def test_without_a_signing_key_nothing_is_used_up(signed_on: ClientApp) -> None:
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert get_device().generation == 0


def test_a_database_error_uses_nothing_up(signed_on: ClientApp) -> None:
    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert signed_on.refresh().status_code == 200


def test_concurrent_refreshes_get_the_same_successor(signed_on: ClientApp) -> None:
    token = signed_on.tokens["refresh_token"]
    with concurrent_refresh(lambda: signed_on.refresh(token)) as faster:
        slower = signed_on.refresh(token)
    assert [slower.status_code, faster[0].status_code] == [200, 200]
    assert slower.json()["refresh_token"] == faster[0].json()["refresh_token"]
    assert (get_device().generation, get_events()) == (1, [])
