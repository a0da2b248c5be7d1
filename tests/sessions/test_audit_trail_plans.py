"""A search in the audit trail uses an index or ends early, with any number of events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.admin import event as event_admin
from ags.sessions.admin import timeouts
from tests.support.operators import SavedOperator
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.postgresql

LIST = "/admin/ags_sessions/event/"
NUMBER = 20_000
"""Session tokens, and events: of the last 23 hours, of two tenants, and a few of no tenant."""

MAX_ROWS = 1000
"""Rows that a statement may read from a table."""

BIG_TABLES = re.compile('FROM "ags_sessions_(sessiontoken|event|device)"')
# `ags_sessions_securityevent` has few rows, and no index of the correlation ID.

TENANT = "CASE n % 2 WHEN 0 THEN 'nagra' ELSE 'sunrise' END"
TIME = f"now() - n * interval '23 hours' / {NUMBER + 1}"
KID = f"CASE WHEN n > {NUMBER} - 10 THEN 'old-key' ELSE 'key' END"

INSERTS = f"""
INSERT INTO ags_sessions_account (tenant_id, account_id, status)
SELECT {TENANT}, 'account-' || n, 'active' FROM generate_series(1, {NUMBER} / 5) n;

INSERT INTO ags_sessions_device
       (tenant_id, account_id, client_id, status, information, service_id, sign_on, correlation_id, proven_at,
        signed_on_at, fixed_expires_at, end_reason, generation, refresh_expires_at, used)
SELECT a.tenant_id, a.id, 'device-' || split_part(a.account_id, '-', 2), 'enabled', '{{}}', s.id,
       'sign-on-' || a.id, 'x', now(), now(), now(), '', 0, now(), '[]'
  FROM ags_sessions_account a JOIN tenants_service s ON s.tenant_id = a.tenant_id;

INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, token_hash, account_id, correlation_id, created_at, expires_at, dead_after,
        kid, redeemed_at, redemption_correlation_id, client_id)
SELECT {TENANT}, s.id, n::text::bytea, 'account-' || n % ({NUMBER} / 5), 'issue-' || n, {TIME},
       {TIME} + interval '300 seconds', {TIME} + interval '300 seconds', {KID},
       CASE WHEN n % 4 < 2 THEN {TIME} + interval '10 seconds' END,
       CASE WHEN n % 4 < 2 THEN 'redemption-' || n END,
       CASE WHEN n % 4 < 2 THEN 'device-' || n % ({NUMBER} / 5) END
  FROM generate_series(1, {NUMBER}) n JOIN tenants_service s ON s.tenant_id = {TENANT};

INSERT INTO ags_sessions_event
       (tenant_id, kind, created_at, service, kid, correlation_id, account_id, client_id, actor, reason,
        details)
SELECT CASE WHEN n % 1000 <> 500 THEN {TENANT} END,
       CASE WHEN n > {NUMBER} - 10 THEN 'staff_action' ELSE 'refused' END, {TIME},
       'Customer Auth Service', {KID}, 'refusal-' || n,
       CASE WHEN n % 3 = 0 THEN 'account-' || n % ({NUMBER} / 5) ELSE '' END,
       CASE WHEN n % 3 = 0 THEN 'device-' || n % ({NUMBER} / 5) ELSE '' END, '', 'key_unknown', '{{}}'
  FROM generate_series(1, {NUMBER}) n;

INSERT INTO ags_sessions_securityevent
       (tenant_id, kind, subject, account_id, correlation_id, first_at, latest_at, times)
SELECT {TENANT}, 'session_token_reused', n::text, 'account-' || n % ({NUMBER} / 5), 'reuse-' || n,
       {TIME}, {TIME}, 1
  FROM generate_series(1, {NUMBER} / 10) n;

ANALYZE ags_sessions_account, ags_sessions_device, ags_sessions_sessiontoken, ags_sessions_event,
        ags_sessions_securityevent;
"""


@pytest.fixture(scope="module")
def many_events_rows(operators: dict[str, SavedOperator], django_db_blocker: Any) -> Iterator[None]:
    """The rows of `many_events`, inserted once: the transaction of each test is a savepoint in this one."""
    with django_db_blocker.unblock(), transaction.atomic(), connection.cursor() as cursor:
        with transaction.atomic():
            _insert(operators)
            transaction.set_rollback(True)
        # PostgreSQL now expects no services.
        cursor.execute("ANALYZE tenants_service")
        _insert(operators)
        cursor.execute(INSERTS)
        # As for an SSD. With the default, reading a small table costs about as much as an index.
        cursor.execute("SET LOCAL random_page_cost = 1.1")
        yield
        transaction.set_rollback(True)


def _insert(operators: dict[str, SavedOperator]) -> None:
    for operator in operators.values():
        operator.insert()


@pytest.fixture
def many_events(many_events_rows: None, db: None) -> None:
    """Thousands of session tokens and events of two tenants."""


def run_search(browser: Client, **terms: str) -> Any:
    return browser.post(LIST, {"tenant": "nagra", **terms}, follow=True)


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in plan:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


def count_rows(scan: dict[str, Any]) -> int:
    """Return how many rows a scan has read."""
    removed = scan.get("Rows Removed by Filter", 0) + scan.get("Rows Removed by Index Recheck", 0)
    return round((scan["Actual Rows"] + removed) * scan["Actual Loops"])


@pytest.mark.parametrize(
    ("terms", "number"),
    [
        ({}, 100),
        ({"account_id": "account-10"}, 7),
        ({"client_id": "device-12"}, 7),
        ({"correlation_id": "issue-1000"}, 1),
        ({"tenant": "", "correlation_id": "issue-1000"}, 1),
        ({"tenant": "", "correlation_id": "redemption-1000"}, 1),
        ({"tenant": "", "correlation_id": "refusal-1000"}, 1),
        ({"kid": "key"}, 100),
        ({"kind": "session_token_issued"}, 100),
        ({"kind": "refused"}, 100),
        ({"tenant": "", "without_tenant": "on"}, 21),  # and the user of the test
        ({"tenant": "", "without_tenant": "on", "kind": "refused"}, 20),
        ({"account_id": "account-10", "kid": "old-key"}, 0),
        ({"account_id": "account-10", "kind": "refused"}, 1),
    ],
)
def test_a_search_reads_few_rows(
    admin_client: Client, many_events: None, terms: dict[str, str], number: int
) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = run_search(admin_client, **terms)
    assert len(page.context["table"]["rows"]) == number
    statements = [query["sql"] for query in queries if BIG_TABLES.search(query["sql"])]
    assert statements
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
            ((plan,),) = cursor.fetchone()
        for scan in scans(plan["Plan"]):
            assert count_rows(scan) <= MAX_ROWS, plan


@pytest.mark.parametrize(
    ("terms", "number"),
    [
        ({"kid": "old-key"}, 13),
        ({"kid": "unknown"}, 0),
        ({"kind": "staff_action"}, 5),
        ({"kind": "signed_on"}, 100),
        ({"kind": "session_token_reused"}, 100),
    ],
)
def test_rare_keys_and_kinds_are_found_without_an_index(
    admin_client: Client, many_events: None, terms: dict[str, str], number: int
) -> None:
    """Such a search reads the events of 24 hours."""
    assert len(run_search(admin_client, **terms).context["table"]["rows"]) == number


def test_a_search_that_takes_too_long_is_ended_and_says_so(
    admin_client: Client, many_events: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(execute: Any, sql: str, *rest: Any) -> Any:
        if 'FROM "ags_sessions_event"' in sql:
            return execute("SELECT pg_sleep(60)", None, *rest[1:])
        return execute(sql, *rest)

    def limits() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout'), current_setting('jit')")
            return cursor.fetchone()

    before = limits()
    monkeypatch.setattr(timeouts, "SEARCH_TIMEOUT", 50)
    with connection.execute_wrapper(wait):
        page = run_search(admin_client)
    assert page.status_code == 200
    assert event_admin.TOO_MANY in page.content.decode()
    assert "table" not in page.context
    assert '<option value="nagra" selected>' in page.content.decode(), "the form can be corrected"
    assert limits() == before
    monkeypatch.setattr(timeouts, "SEARCH_TIMEOUT", PATIENCE * 1000)
    assert len(run_search(admin_client).context["table"]["rows"]) == 100
    assert limits() == before
