"""The purge of devices and accounts that nobody has used for the `unused_retention` of their tenant."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from ags.operations.purge import purge
from ags.operations.purge_counts import read_purge_status
from ags.sessions.models import Account, AccountStatus, Device, DeviceStatus
from tenants.models import Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_url
from tests.support.purge import run_purge, time_before

DAYS = 30


@pytest.fixture
def keeps_30_days(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.unused_retention = DAYS
    tenant.save()


def end_sign_ons(days: int, **rows: Any) -> None:
    """Let the sign-ons have ended that many days and two minutes ago."""
    Device.unscoped.filter(**rows).update(fixed_expires_at=time_before(days=days, minutes=2))


def deleted() -> dict[str, int]:
    """Purge, and return the number of deleted rows of each kind that has any."""
    counts: dict[str, int] = {}
    for kind, number in purge():
        counts[kind] = counts.get(kind, 0) + number
    return {kind: number for kind, number in counts.items() if number}


def test_nothing_is_deleted_by_default(app: ClientApp) -> None:
    app.sign_on()
    end_sign_ons(3650)
    assert "unused" not in run_purge()
    assert (Device.unscoped.count(), Account.unscoped.count()) == (1, 1)


@pytest.mark.usefixtures("keeps_30_days")
def test_an_unused_device_is_deleted_with_its_account(app: ClientApp, sunrise: HeadEnd) -> None:
    app.sign_on()
    other = ClientApp(sunrise)
    other.sign_on()
    end_sign_ons(DAYS - 1)
    assert deleted() == {}
    end_sign_ons(DAYS)
    assert deleted() == {"unused devices": 1, "unused accounts": 1}
    assert (Device.unscoped.get().tenant_id, Account.unscoped.get().tenant_id) == ("sunrise", "sunrise")
    kinds = read_purge_status().kinds
    assert (kinds["unused devices"].purged, kinds["unused accounts"].purged) == (1, 1)


@pytest.mark.usefixtures("keeps_30_days")
def test_its_app_gets_the_same_response_as_that_of_a_deleted_device(app: ClientApp) -> None:
    app.sign_on()
    client_id = app.tokens["client_id"]
    Device.unscoped.update(status=DeviceStatus.DELETED)
    before = app.sign_on(clientId=client_id).json()
    Device.unscoped.update(status=DeviceStatus.ENABLED)
    end_sign_ons(DAYS)
    assert deleted() == {"unused devices": 1, "unused accounts": 1}
    after = app.sign_on(clientId=client_id)
    assert (after.status_code, after.json()["code"]) == (403, 20003)
    assert after.json() | {"correlationId": ""} == before | {"correlationId": ""}
    assert app.sign_on().status_code == 201, "as a new device, of a new account"


@pytest.mark.usefixtures("keeps_30_days")
def test_an_account_is_deleted_with_its_last_device(app: ClientApp) -> None:
    app.sign_on()
    first = app.tokens["client_id"]
    app.sign_on()
    assert Account.unscoped.count() == 1
    end_sign_ons(DAYS, client_id=first)
    assert deleted() == {"unused devices": 1}
    Device.unscoped.update(status=DeviceStatus.DELETED)
    end_sign_ons(0)
    assert deleted() == {"deleted devices": 1, "unused accounts": 1}


@pytest.mark.usefixtures("keeps_30_days")
def test_a_purge_undoes_no_decision_of_staff(app: ClientApp) -> None:
    app.sign_on()
    end_sign_ons(3650)
    Device.unscoped.update(status=DeviceStatus.DISABLED)
    assert deleted() == {}
    Device.unscoped.update(status=DeviceStatus.ENABLED)
    Account.unscoped.update(status=AccountStatus.SUSPENDED)
    assert deleted() == {"unused devices": 1}
    response = app.sign_on()
    assert (response.status_code, Account.unscoped.get().status) == (403, AccountStatus.SUSPENDED)


@pytest.mark.usefixtures("keeps_30_days")
@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.CANCELLED])
def test_an_account_that_is_not_active_stays(app: ClientApp, status: str) -> None:
    app.sign_on()
    end_sign_ons(3650)
    Account.unscoped.update(status=status)
    assert deleted() == {"unused devices": 1}
    assert Account.unscoped.get().status == status


@pytest.mark.usefixtures("keeps_30_days")
@pytest.mark.parametrize(("hours", "accounts"), [(23, 1), (25, 0)])
def test_an_account_with_a_recent_revocation_stays(app: ClientApp, hours: int, accounts: int) -> None:
    app.sign_on()
    end_sign_ons(DAYS)
    Account.unscoped.update(revoked_before=time_before(hours=hours))
    run_purge()
    assert (Device.unscoped.count(), Account.unscoped.count()) == (0, accounts)


@pytest.mark.usefixtures("keeps_30_days")
def test_a_refresh_until_the_end_of_the_sign_on_keeps_the_device(app: ClientApp) -> None:
    app.sign_on()
    Device.unscoped.update(signed_on_at=time_before(days=3650), created_at=time_before(days=3650))
    assert app.refresh().status_code == 200
    assert deleted() == {}
    assert app.refresh().status_code == 200


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("keeps_30_days")
def test_an_account_that_a_sign_on_has_locked_is_skipped(app: ClientApp) -> None:
    app.sign_on()
    end_sign_ons(DAYS)
    with psycopg.connect(database_url()) as sign_on:
        sign_on.execute("UPDATE ags_sessions_account SET status = status")
        assert deleted() == {"unused devices": 1}, "without waiting"
    assert Account.unscoped.count() == 1


@pytest.mark.postgresql
@pytest.mark.usefixtures("keeps_30_days")
def test_unused_devices_are_found_by_an_index(app: ClientApp) -> None:
    app.sign_on()
    device = Device.unscoped.get()
    for number in range(3000):
        device.pk, device.client_id, device.sign_on = None, f"{number:032}", f"{number:032}"
        device.fixed_expires_at = Now()
        device._state.adding = True
        device.save()
    Device.unscoped.filter(client_id__lt=f"{1500:032}").update(fixed_expires_at=time_before(days=31))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE ags_sessions_device")
        with CaptureQueriesContext(connection) as captured:
            kinds = dict.fromkeys(kind for kind, _ in purge())
        assert "unused devices" in kinds
        statement = next(query["sql"] for query in captured if "'enabled'" in query["sql"])
        cursor.execute("EXPLAIN " + statement)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "enabled_devices_by_end" in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan
