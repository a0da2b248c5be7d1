"""Changes of the configuration by commands in the audit trail."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Event
from tenants.models import Key, SigningKey, Tenant
from tests.support import secret_settings
from tests.support.clients import HeadEnd
from tests.support.configuration import NEW_ENCRYPTION_KEY
from tests.support.configuration_files import SECRET, key, service, tenant
from tests.support.events import capture_events, change_of, check_command, check_no_secret, values_of

pytestmark = pytest.mark.django_db


def test_apply_leaves_an_event_for_each_row_that_it_changes(apply: Callable[..., list[str]]) -> None:
    events = capture_events(lambda: apply(tenant()))
    assert [event.details["model"] for event in events] == [
        "tenant",
        "signingkey",
        "signingkey",
        "service",
        "key",
    ]
    for event in events:
        check_command(event)
        assert (event.kind, event.reason, event.tenant_id) == (
            Event.Kind.CONFIGURATION_CHANGED,
            "add",
            "nagra",
        )
    changed = tenant(
        name="Nagra AG",
        services=[service(settings={"clock_skew": 61})],
        keys=[key(state="retiring", not_after="2030-01-01T00:00:00+01:00")],
    )
    events = capture_events(lambda: apply(changed))
    assert [values_of(event) for event in events] == [
        ({"name": "Nagra"}, {"name": "Nagra AG"}),
        ({"settings": {"clock_skew": 60}}, {"settings": {"clock_skew": 61}}),
        (
            {"state": "active", "not_after": None},
            {"state": "retiring", "not_after": "2029-12-31T23:00:00+00:00"},
        ),
    ]
    assert capture_events(lambda: apply(changed)) == []
    check_no_secret(SECRET)


def test_apply_that_is_rolled_back_leaves_no_event(apply: Callable[..., list[str]]) -> None:
    assert capture_events(lambda: apply(tenant(), "--dry-run")) == []
    invalid = tenant(keys=[key(), key(kid="invalid key")])

    def fail() -> None:
        with pytest.raises(CommandError):
            apply(invalid)

    assert capture_events(fail) == []
    assert not Tenant.objects.exists()


def test_an_event_costs_one_statement_for_each_row(apply: Callable[..., list[str]]) -> None:
    services = [service(name=f"Service {number}") for number in range(200)]
    apply(tenant(services=services, keys=[]))
    changed = [entry | {"display_name": "Changed"} for entry in services]
    with CaptureQueriesContext(connection) as captured:
        events = capture_events(lambda: apply(tenant(services=changed, keys=[])))
    assert len(events) == 200
    statements = [query["sql"] for query in captured]
    inserted = [sql for sql in statements if sql.startswith('INSERT INTO "ags_sessions_event"')]
    assert len(inserted) == 200
    assert not [sql for sql in statements if "SELECT" in sql and "historical" in sql.lower()], (
        "the values before come from the row"
    )


def test_rotate_signing_key_leaves_an_event(nagra: HeadEnd) -> None:
    SigningKey.unscoped.get(state="staged").delete()
    command = lambda: call_command("rotate_signing_key", "nagra", stdout=io.StringIO())  # noqa: E731
    (event,) = capture_events(command)
    check_command(event)
    assert (event.kid, event.reason) == (SigningKey.unscoped.get(state="staged").kid, "add")


def test_reseal_leaves_an_event_for_each_secret(nagra: HeadEnd, settings: Any) -> None:
    secret_settings.create_service()
    settings.AGS_ENCRYPTION_KEYS = (NEW_ENCRYPTION_KEY, *settings.AGS_ENCRYPTION_KEYS)
    events = capture_events(lambda: call_command("reseal", stdout=io.StringIO()))
    assert sorted(change_of(event) for event in events) == sorted(
        (row._meta.model_name, str(row), {"secret": "set"}, {"secret": "re-encrypted"})
        for row in (Key.unscoped.get(), *SigningKey.unscoped.all(), secret_settings.stored())
    )
    for event in events:
        check_command(event)
