"""The pages hold with any number of rows: what they ask of the database, and what they send, is bounded."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import Account, Device, Event, SecurityEvent
from tenants.models import Assignment, Key, KeyUse, ResourceServer, Service, SigningKey, Tenant
from tests.support.operators import SavedOperator

MANY = 1500
LISTS = [
    "tenants/tenant",
    "tenants/service",
    "tenants/key",
    "tenants/signingkey",
    "tenants/resourceserver",
    "tenants/assignment",
    "auth/user",
]
# Groups are made by hand, one by one; all else grows.
OURS = re.compile(r'FROM "(tenants_|ags_sessions_|auth_user"|django_admin_log)')
BOUNDED = re.compile(r'LIMIT \d+|WHERE \(?"\w+"\."id" (= |IN \()')


@pytest.fixture(scope="module")
def crowd_rows(operators: dict[str, SavedOperator], django_db_blocker: Any) -> Iterator[None]:
    """The rows of `crowd`, inserted once: the transaction of each test is a savepoint in this one."""
    with django_db_blocker.unblock(), transaction.atomic():
        operators["nagra"].insert()
        _insert_crowd()
        yield
        transaction.set_rollback(True)


@pytest.fixture
def crowd(crowd_rows: None, db: None) -> None:
    """Thousands of tenants, services, keys, accounts of staff, and entries in the log of the pages."""


def _insert_crowd() -> None:
    key, service, signing_key = (
        Key.unscoped.get(),
        Service.unscoped.get(),
        SigningKey.unscoped.get(state="active"),
    )
    Tenant.objects.bulk_create(Tenant(id=f"crowd-{n:04}", name=f"Crowd {n}") for n in range(MANY))
    Service.unscoped.bulk_create(
        Service(tenant_id=f"crowd-{n:04}", name=f"Crowd service {n}", strategy=service.strategy)
        for n in range(MANY)
    )
    Key.unscoped.bulk_create(
        Key(tenant_id=f"crowd-{n:04}", kid=f"crowd-key-{n}", sealed_secret=key.sealed_secret)
        for n in range(MANY)
    )
    SigningKey.unscoped.bulk_create(
        SigningKey(tenant_id=f"crowd-{n:04}", kid=f"crowd-{n:04}", sealed_secret=signing_key.sealed_secret)
        for n in range(MANY)
    )
    ResourceServer.unscoped.bulk_create(
        ResourceServer(tenant_id=f"crowd-{n:04}", client_id=f"crowd-{n:04}", name="x", secret_hash=b"x")
        for n in range(MANY)
    )
    _subscribers(service)
    users = User.objects.bulk_create(User(username=f"crowd-{n}") for n in range(MANY))
    Assignment.unscoped.bulk_create(
        Assignment(tenant_id=f"crowd-{n:04}", user=user) for n, user in enumerate(users)
    )
    LogEntry.objects.bulk_create(
        LogEntry(user=users[0], action_flag=2, object_id=str(users[0].pk), object_repr="x")
        for _ in range(MANY)
    )


def _subscribers(service: Service) -> None:
    """Thousands of accounts, devices of one of them, and events."""
    old = "2001-01-01T00:00:00Z"
    Account.unscoped.bulk_create(Account(tenant_id="nagra", account_id=f"crowd-{n:04}") for n in range(MANY))
    account = Account.objects.for_tenant("nagra").get(account_id="crowd-0000")
    Device.unscoped.bulk_create(
        Device(
            tenant_id="nagra",
            account=account,
            client_id=f"crowd-{n:04}",
            sign_on=f"crowd-{n:04}",
            information={},
            service=service,
            proven_at=old,
            signed_on_at=old,
            fixed_expires_at=old,
            refresh_expires_at=old,
        )
        for n in range(MANY)
    )
    SecurityEvent.unscoped.bulk_create(
        SecurityEvent(tenant_id="nagra", kind="session_token_reused", subject=str(n), account_id="crowd-0000")
        for n in range(MANY)
    )
    keys = Key.objects.for_tenant("nagra").order_by("pk")[:MANY]
    now = get_database_time()
    KeyUse.unscoped.bulk_create(
        KeyUse(tenant_id="nagra", key=key, began_at=now, accepted=1, refused=0) for key in keys
    )
    Event.unscoped.bulk_create(
        Event(tenant_id="nagra", kind="refused", account_id="crowd-0000", correlation_id=f"crowd-{n:04}")
        for n in range(MANY)
    )


def bounded(queries: CaptureQueriesContext) -> list[str]:
    """Return the statements on tables that grow, once it is sure that each is bounded."""
    statements = [query["sql"] for query in queries if OURS.search(query["sql"])]
    for statement in statements:
        assert BOUNDED.search(statement), statement
        if "COUNT(" in statement:
            assert re.search(r"LIMIT 1001\)?", statement), statement
    return statements


@pytest.mark.parametrize("page", LISTS)
def test_a_list_asks_for_one_page_and_counts_no_further_than_it_says(
    admin_client: Client, crowd: None, page: str
) -> None:
    admin_client.get("/admin/")
    with CaptureQueriesContext(connection) as queries:
        listed = admin_client.get(f"/admin/{page}/")
    assert listed.status_code == 200
    table = page.replace("/", "_")
    asked = [sql for sql in bounded(queries) if f'FROM "{table}"' in sql and "session_" not in sql]
    # The account of whoever looks, the bounded count, the page.
    assert len(asked) == (3 if page == "auth/user" else 2)
    assert len(listed.context["cl"].result_list) <= 50
    assert len(listed.content) < 300_000
    text = listed.content.decode()
    assert "More than 1000" in text
    assert f"crowd-{MANY - 1}" not in text


@pytest.mark.parametrize("page", LISTS)
def test_a_list_of_many_rows_takes_as_many_statements_as_one_of_few(
    admin_client: Client, crowd: None, page: str
) -> None:
    address = f"/admin/{page}/"
    counts = []
    for query in ({"q": f"crowd-{MANY - 1}"}, {}):
        with CaptureQueriesContext(connection) as queries:
            listed = admin_client.get(address, query)
        counts.append((len(listed.context["cl"].result_list), len(queries)))
    ((few, statements), (many, statements_of_many)) = counts
    assert (few, many) == (1, 50)
    assert statements_of_many <= statements


@pytest.mark.parametrize("page", LISTS)
def test_a_search_is_bounded_too(admin_client: Client, crowd: None, page: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        found = admin_client.get(f"/admin/{page}/", {"q": f"crowd-{MANY - 1}"})
    bounded(queries)
    assert len(found.context["cl"].result_list) == 1


@pytest.mark.parametrize("model", ["account", "device", "securityevent", "event"])
def test_a_look_up_is_bounded_too(admin_client: Client, crowd: None, model: str) -> None:
    known = {"tenant": "nagra", "account_id": "crowd-0000"}
    with CaptureQueriesContext(connection) as queries:
        found = admin_client.post(f"/admin/ags_sessions/{model}/", known, follow=True)
    bounded(queries)
    assert len(found.context["table"]["rows"]) == (1 if model == "account" else 100)


@pytest.mark.parametrize("number", ["20", "21", "60", "0", "x", "all"])
def test_pages_lead_no_further_than_the_count(admin_client: Client, crowd: None, number: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get("/admin/tenants/key/", {"all": ""} if number == "all" else {"p": number})
    bounded(queries)
    assert page.status_code in {200, 302}
    if page.status_code == 200:
        assert len(page.context["cl"].result_list) <= 50


@pytest.mark.parametrize(
    "page",
    [
        "",
        "tenants/",
        "tenants/tenant/nagra/change/",
        "tenants/tenant/nagra/history/",
        "tenants/tenant/nagra/disable/",
        "tenants/tenant/nagra/revoke-issued/",
        "tenants/tenant/nagra/rotate/",
        "tenants/service/add/",
        "tenants/service/add/?tenant=nagra&strategy=operator_token",
        "tenants/service/{service}/change/",
        "tenants/service/{service}/disable/",
        "tenants/service/?tenant__id__exact=nagra",
        "tenants/key/add/?tenant=nagra",
        "tenants/key/{key}/change/",
        "tenants/key/{key}/history/",
        "tenants/key/{key}/revoke/",
        "tenants/key/?state__exact=revoked",
        "tenants/signingkey/{signingkey}/change/",
        "tenants/signingkey/{signingkey}/revoke/",
        "tenants/resourceserver/add/?tenant=nagra",
        "ags_sessions/sessiontoken/",
        "ags_sessions/account/",
        "ags_sessions/account/add/",
        "ags_sessions/account/{account}/change/",
        "ags_sessions/account/{account}/history/",
        "ags_sessions/account/{account}/revoke-all/",
        "ags_sessions/device/",
        "ags_sessions/device/{device}/change/",
        "ags_sessions/device/{device}/end/",
        "ags_sessions/securityevent/",
        "ags_sessions/securityevent/?tenant=nagra",
        "ags_sessions/event/",
        "ags_sessions/event/?account={account}",
        "ags_sessions/event/?device={device}",
        "auth/user/{user}/change/",
        "auth/user/{user}/history/",
        "autocomplete/?term=crowd&app_label=tenants&model_name=key&field_name=tenant",
        "autocomplete/?term=crowd&app_label=ags_sessions&model_name=sessiontoken&field_name=tenant",
    ],
)
def test_no_other_page_reads_or_sends_them_all(admin_client: Client, crowd: None, page: str) -> None:
    address = page.format(
        service=Service.objects.for_tenant("nagra").get().pk,
        key=Key.objects.for_tenant("nagra").get().pk,
        user=User.objects.get(username="crowd-0").pk,
        signingkey=SigningKey.objects.for_tenant("nagra").get(state="active").pk,
        account=Account.objects.for_tenant("nagra").get(account_id="crowd-0000").pk,
        device=Device.objects.for_tenant("nagra").get(client_id="crowd-0000").pk,
    )
    with CaptureQueriesContext(connection) as queries:
        shown = admin_client.get(f"/admin/{address}")
    assert shown.status_code == 200
    bounded(queries)
    assert len(shown.content) < (200_000 if "table" in (shown.context or ()) else 100_000)
    if page.startswith("autocomplete"):
        assert len(shown.json()["results"]) == 20
