"""The pages hold with any number of rows: what they ask of the database, and what they send, is bounded."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tenants.models import Assignment, Key, Service, Tenant
from tests.conftest import HeadEnd

MANY = 3000
LISTS = ["tenants/tenant", "tenants/service", "tenants/key", "tenants/assignment", "auth/user"]
# Groups are made by hand, one by one; all else grows.
OURS = re.compile(r'FROM "(tenants_|ags_sessions_|auth_user"|django_admin_log)')
BOUNDED = re.compile(r'LIMIT \d+|WHERE \(?"\w+"\."id" (= |IN \()')


@pytest.fixture
def crowd(nagra: HeadEnd) -> None:
    """Thousands of tenants, services, keys, accounts of staff, and entries in the log of the pages."""
    key, service = Key.unscoped.get(), Service.unscoped.get()
    Tenant.objects.bulk_create(Tenant(id=f"crowd-{n:04}", name=f"Crowd {n}") for n in range(MANY))
    Service.unscoped.bulk_create(
        Service(tenant_id=f"crowd-{n:04}", name=f"Crowd service {n}", strategy=service.strategy)
        for n in range(MANY)
    )
    Key.unscoped.bulk_create(
        Key(tenant_id=f"crowd-{n:04}", kid=f"crowd-key-{n}", sealed_secret=key.sealed_secret)
        for n in range(MANY)
    )
    users = User.objects.bulk_create(User(username=f"crowd-{n}") for n in range(MANY))
    Assignment.unscoped.bulk_create(
        Assignment(tenant_id=f"crowd-{n:04}", user=user) for n, user in enumerate(users)
    )
    LogEntry.objects.bulk_create(
        LogEntry(user=users[0], action_flag=2, object_id=str(users[0].pk), object_repr="x")
        for _ in range(MANY)
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
    assert "crowd-2999" not in text


@pytest.mark.parametrize("page", LISTS)
def test_a_search_is_bounded_too(admin_client: Client, crowd: None, page: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        found = admin_client.get(f"/admin/{page}/", {"q": "crowd-2999"})
    bounded(queries)
    assert len(found.context["cl"].result_list) == 1


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
        "ags_sessions/sessiontoken/",
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
    )
    with CaptureQueriesContext(connection) as queries:
        shown = admin_client.get(f"/admin/{address}")
    assert shown.status_code == 200
    bounded(queries)
    assert len(shown.content) < 100_000
    if page.startswith("autocomplete"):
        assert len(shown.json()["results"]) == 20


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("tenants/key", {"sealed_secret__gt": "x"}),
        ("tenants/key", {"sealed_secret__isnull": "0"}),
        ("tenants/service", {"settings__session_token_ttl": "300"}),
        ("tenants/tenant", {"services__name": "x"}),
        ("auth/user", {"password__startswith": "pbkdf2"}),
    ],
)
def test_the_query_string_is_no_way_to_ask_for_what_is_not_shown(
    admin_client: Client, nagra: HeadEnd, page: str, query: dict[str, str]
) -> None:
    assert admin_client.get(f"/admin/{page}/", query).status_code == 400


def test_no_list_filters_by_a_table(db: None) -> None:
    from django.contrib import admin
    from django.db.models import ForeignKey

    for model, page in admin.site._registry.items():
        for name in page.list_filter:
            field: Any = model._meta.get_field(str(name))
            assert not isinstance(field, ForeignKey), (model, name)


@pytest.mark.parametrize(
    "address",
    [
        "tenants/tenant/a%00b/change/",
        "tenants/tenant/a%00b/history/",
        "tenants/tenant/a%00b/disable/",
        "tenants/tenant/?q=a%00b",
        "tenants/tenant/?enabled__exact=a%00b",
        "tenants/key/?tenant__id__exact=a%00b",
        "tenants/key/?state__exact=a%00b",
        "tenants/key/add/?tenant=a%00b",
        "tenants/key/99999999999999999999/change/",
        "tenants/key/x/revoke/",
        "tenants/service/add/?tenant=a%00b&strategy=operator_token",
        "tenants/service/add/?tenant=a%00b",
        "ags_sessions/sessiontoken/a%00b/change/",
        "autocomplete/?term=a%00b&app_label=tenants&model_name=key&field_name=tenant",
    ],
)
def test_what_no_column_can_hold_is_no_crash(admin_client: Client, nagra: HeadEnd, address: str) -> None:
    assert admin_client.get(f"/admin/{address}", follow=True).status_code in {200, 400, 404}
