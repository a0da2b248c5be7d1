"""The statements of an issue: their number, and changes of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from tenants.models import Key, Service, Tenant
from tests.support.clients import HeadEnd
from tests.support.issues import get_session_tokens, get_verbs
from tests.support.operators import add_key
from tests.support.rejections import CONFIGURATION_CHANGES
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response

# SQL statements


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("claims", [{}, {"jti": "once"}])
def test_a_warm_request_needs_one_statement(
    nagra: HeadEnd, stale_snapshots: None, claims: dict[str, Any]
) -> None:
    nagra.present(nagra.token())
    token = nagra.token(**claims)
    with CaptureQueriesContext(connection) as captured:
        assert nagra.present(token).status_code == 200
    assert get_verbs(captured) == ["INSERT"], "without a transaction"
    assert len(get_session_tokens()) == 2


def test_a_warm_discovery_needs_no_statement(nagra: HeadEnd, stale_snapshots: None) -> None:
    nagra.discover()
    with CaptureQueriesContext(connection) as captured:
        assert nagra.discover().status_code == 200
    assert get_verbs(captured) == []


def test_a_warm_rejection_needs_no_statement(nagra: HeadEnd, stale_snapshots: None) -> None:
    nagra.discover()
    with CaptureQueriesContext(connection) as captured:
        for token in ("garbage", nagra.token(exp=1), nagra.token(headers={"kid": "unknown"})):
            assert nagra.present(token).status_code == 401
        assert nagra.present(nagra.token(), nv_tenant_id="nobody").status_code == 403
        assert nagra.present(nagra.token(), x_auth_service_id="unknown").status_code == 403
    assert get_verbs(captured) == []


NAME = "OperatorAuthToken"
INVALID_REQUESTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "no tenant": (None, {"nv_tenant_id": None}),
    "an invalid tenant": (None, {"nv_tenant_id": "na gra"}),
    "two tenants": (None, {"nv_tenant_id": "nagra,nagra"}),
    "no service": (None, {"x_auth_service_id": None}),
    "an invalid service": (None, {"x_auth_service_id": " "}),
    "two correlation ids": (None, {"x_correlation_id": "a,b"}),
    "another host": (None, {"host": "other.example"}),
    "another type": (None, {"content_type": "text/plain"}),
    "compressed": (None, {"content_encoding": "gzip"}),
    "too large": (b" " * 70_000, {}),
    "no JSON": (b"{", {}),
    "no object": ([], {}),
    "a member twice": (b'{"parameters": [], "parameters": []}', {}),
    "no parameters": ({}, {}),
    "parameters that are no array": ({"parameters": {}}, {}),
    "a parameter that is no object": ({"parameters": ["x"]}, {}),
    "a parameter without a name": ({"parameters": [{"value": "x"}]}, {}),
    "a parameter without a value": ({"parameters": [{"name": NAME}]}, {}),
    "a value that is no string": ({"parameters": [{"name": NAME, "value": 1}]}, {}),
    "a value that is too long": ({"parameters": [{"name": NAME, "value": "x" * 8193}]}, {}),
    "a parameter twice": ({"parameters": [{"name": n, "value": "x"} for n in (NAME, NAME.lower())]}, {}),
}


@pytest.mark.parametrize(("body", "headers"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_the_database_is_not_read_before_headers_body_and_parameters_are_valid(
    nagra: HeadEnd, stale_snapshots: None, body: Any, headers: dict[str, Any]
) -> None:
    good = {"parameters": [{"name": NAME, "value": nagra.token()}]}
    with CaptureQueriesContext(connection) as captured:
        answer = nagra.post(good if body is None else body, **headers)
    assert answer.status_code in (400, 413, 415)
    assert get_verbs(captured) == []
    with CaptureQueriesContext(connection) as captured:
        assert nagra.post(good).status_code == 200, (
            "only the change is rejected; the snapshot was not read before"
        )
    assert get_verbs(captured) == ["SELECT"] * 6 + ["INSERT"]


@pytest.mark.parametrize("claims", [{}, {"jti": "new"}])
@pytest.mark.parametrize(("disable", "answer"), CONFIGURATION_CHANGES)
def test_revoked_or_disabled_configuration_issues_nothing_immediately(
    nagra: HeadEnd,
    stale_snapshots: None,
    disable: Callable[[], None],
    answer: dict[str, Any],
    claims: dict[str, Any],
) -> None:
    assert nagra.present(nagra.token()).status_code == 200
    disable()
    before = len(get_session_tokens())
    for _ in range(2):
        assert full_response(nagra.present(nagra.token(**claims), x_correlation_id=CORRELATION_ID)) == answer
    assert len(get_session_tokens()) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda: Key.objects.for_tenant("nagra").update(state="revoked"),
        lambda: Key.objects.for_tenant("nagra").update(not_after=Now()),
        lambda: Key.objects.for_tenant("nagra").update(not_before=datetime.now(UTC) + timedelta(minutes=1)),
        lambda: Service.objects.for_tenant("nagra").update(enabled=False),
        lambda: Tenant.objects.filter(pk="nagra").update(enabled=False),
    ],
)
def test_the_statement_checks_the_rows_in_addition_to_the_version(
    nagra: HeadEnd, stale_snapshots: None, change: Callable[[], None]
) -> None:
    """A change with `update()` does not increment the version."""
    nagra.present(nagra.token())
    change()
    assert nagra.present(nagra.token()).status_code in (401, 403)
    assert len(get_session_tokens()) == 1


def test_a_key_expires_by_the_databases_clock(nagra: HeadEnd, stale_snapshots: None) -> None:
    """By the clock of this process, the key is valid for another half hour."""
    Key.objects.for_tenant("nagra").update(not_after=datetime.now(UTC) - timedelta(minutes=30))
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1), tick=True):
        assert (
            full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
        )
    assert get_session_tokens() == []


def test_a_request_is_retried_after_an_irrelevant_change_of_the_tenant(
    nagra: HeadEnd, stale_snapshots: None
) -> None:
    nagra.present(nagra.token())
    tenant = Tenant.objects.get(pk="nagra")
    tenant.name = "Nagra AG"
    tenant.save()
    with CaptureQueriesContext(connection) as captured:
        assert nagra.present(nagra.token(jti="once")).status_code == 200
    # Rejected INSERT, explanation, versions of all tenants, the tenant in five statements, INSERT.
    assert get_verbs(captured) == ["INSERT", "SELECT", *["SELECT"] * 6, "INSERT"]
    assert len(get_session_tokens()) == 2
    with CaptureQueriesContext(connection) as captured:
        assert nagra.present(nagra.token()).status_code == 200
    assert get_verbs(captured) == ["INSERT"]


def test_changed_settings_apply_immediately(nagra: HeadEnd, stale_snapshots: None) -> None:
    nagra.present(nagra.token())
    service = Service.objects.for_tenant("nagra").get()
    service.settings |= {"replay": "required", "session_token_ttl": 7}
    service.save()
    assert nagra.present(nagra.token()).json()["reason"] == "claim_missing"
    assert nagra.present(nagra.token(jti="a")).status_code == 200
    assert [
        round(row.expires_at.timestamp() - row.created_at.timestamp()) for row in get_session_tokens()
    ] == [300, 7]


def test_a_new_key_works_immediately_for_a_tenant_without_snapshot(nagra: HeadEnd) -> None:
    new = HeadEnd("nagra", "new", bytes(range(60, 100)))
    add_key(new)
    assert new.present(new.token()).status_code == 200
