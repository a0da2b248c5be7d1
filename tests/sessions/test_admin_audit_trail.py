"""The search in the audit trail, in the admin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from ags.database.clock import get_database_time
from ags.sessions.models import Event, SessionToken
from tenants.models import Assignment, Tenant
from tests.support.audit_search import (
    ENDED,
    ISSUED,
    LIST,
    REFUSED,
    REUSED,
    SIGNED_ON,
    add_event,
    add_permissions,
    kinds,
    rows,
    search,
    time_fields,
)
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person


def test_nothing_is_shown_before_a_search(admin_client: Client, trail: ClientApp) -> None:
    page = admin_client.get(LIST)
    assert "table" not in page.context
    assert "account-1" not in page.content.decode()
    for query in ({"tenant": "nagra"}, {"account_id": "account-1"}, {"correlation_id": "call-1"}):
        assert "table" not in admin_client.get(LIST, query).context


def test_the_events_of_a_tenant_are_shown_newest_first(admin_client: Client, trail: ClientApp) -> None:
    page = search(admin_client)
    assert kinds(page) == [ENDED, REFUSED, REUSED, SIGNED_ON, ISSUED]
    ended, refused, _, signed_on, issued = rows(page)
    client_id = trail.tokens["client_id"]
    token = SessionToken.unscoped.get()
    assert f"{token.created_at:%Y-%m-%d %H:%M:%S}</a>" in issued.pop("time (UTC)")
    assert f'explainedrequest/?sessiontoken={token.pk}">Explain</a>' in issued.pop("explanation")
    assert issued == {
        "kind": ISSUED,
        "tenant": "nagra",
        "service": "Customer Auth Service",
        "account ID": "account-1",
        "client ID": "—",
        "key ID": "nagra-key-1",
        "client address": "127.0.0.1",
        "actor": "—",
        "reason": "—",
        "correlation ID": "call-1",
    }
    assert (signed_on["account ID"], signed_on["client ID"]) == ("account-1", client_id)
    assert (refused["reason"], refused["key ID"]) == ("key_unknown", "other-key")
    assert (ended["reason"], ended["client ID"], ended["correlation ID"]) == (
        "signed_out",
        client_id,
        "call-3",
    )


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"account_id": "account-1"}, [ENDED, REUSED, SIGNED_ON, ISSUED]),
        ({"account_id": "account"}, []),
        ({"correlation_id": "call-1"}, [ISSUED]),
        ({"correlation_id": "call-2"}, [REFUSED]),
        ({"correlation_id": "CALL-2"}, []),
        ({"kid": "nagra-key-1"}, [SIGNED_ON, ISSUED]),
        ({"kid": "other-key"}, [REFUSED]),
        ({"kind": "session_token_issued"}, [ISSUED]),
        ({"kind": "signed_on"}, [SIGNED_ON]),
        ({"kind": "session_token_reused"}, [REUSED]),
        ({"kind": "omitted"}, []),
        ({"kind": "session_token_issued", "kid": "nagra-key-1", "account_id": "account-1"}, [ISSUED]),
        ({"kind": "session_token_issued", "kid": "nagra-key-1", "account_id": "account-2"}, []),
        ({"correlation_id": "call-1", "kid": "other-key"}, []),
    ],
)
def test_criteria_can_be_combined(
    admin_client: Client, trail: ClientApp, terms: dict[str, str], expected: list[str]
) -> None:
    page = search(admin_client, **terms)
    assert kinds(page) == expected
    if not expected:
        assert "No event matches." in page.content.decode()


def test_events_are_found_by_the_device(admin_client: Client, trail: ClientApp) -> None:
    other = ClientApp(trail.head_end)
    assert other.sign_on().status_code == 201
    for app, expected in ((trail, [ENDED, SIGNED_ON]), (other, [SIGNED_ON])):
        assert kinds(search(admin_client, client_id=app.tokens["client_id"])) == expected


def test_the_start_is_included_and_the_end_is_not(admin_client: Client, nagra: HeadEnd) -> None:
    now = get_database_time().replace(microsecond=0)
    times = [now - timedelta(minutes=number) for number in range(3)]
    for time in times:
        add_event(created_at=time, correlation_id=f"{time:%H:%M}")

    def found(**period: datetime) -> list[str]:
        terms = [time_fields(name, time) for name, time in period.items()]
        page = search(admin_client, **{name: value for fields in terms for name, value in fields.items()})
        return [row["correlation ID"] for row in rows(page)]

    all_found = [f"{time:%H:%M}" for time in times]
    assert found() == all_found
    assert found(since=times[1]) == all_found[:2]
    assert found(until=times[1]) == all_found[2:]
    assert found(since=times[1], until=times[0]) == all_found[1:2]


def test_a_search_that_reads_all_events_covers_24_hours_by_default(
    admin_client: Client, nagra: HeadEnd
) -> None:
    now = get_database_time()
    fields = {"account_id": "account-1", "client_id": "device-1", "correlation_id": "call-1", "kid": "key-1"}
    for hours in (1, 23, 25, 49):
        add_event(created_at=now - timedelta(hours=hours), reason=str(hours), **fields)

    def found(**terms: str) -> list[str]:
        return [row["reason"] for row in rows(search(admin_client, **terms))]

    for terms in ({}, {"kind": "refused"}, {"kid": "key-1"}):
        assert found(**terms) == ["1", "23"]
        assert found(**terms, **time_fields("since", now - timedelta(hours=30))) == ["1", "23", "25"]
        assert found(**terms, **time_fields("until", now - timedelta(hours=24))) == ["25"]
    for name in ("account_id", "client_id", "correlation_id"):
        assert found(**{name: fields[name]}) == ["1", "23", "25", "49"]


def test_the_result_says_from_when_events_were_searched(admin_client: Client, nagra: HeadEnd) -> None:
    page = search(admin_client)
    form = page.context["form"]
    since = form["since"].initial
    assert since <= datetime.now(UTC) - timedelta(hours=24) < since + timedelta(hours=1)
    text = page.content.decode()
    assert f"No event matches. Events before {since:%Y-%m-%d %H:%M:%S} UTC were not searched." in text
    assert f'value="{since:%Y-%m-%d}"' in text
    assert f'value="{since:%H:%M:%S}"' in text
    assert "were not searched" not in search(admin_client, account_id="account-1").content.decode()


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "", "account_id": "account-1"}, "tenant"),
        ({"tenant": "nobody"}, "tenant"),
        ({"tenant": "a\x00b"}, "tenant"),
        ({"tenant": "nagra", "without_tenant": "on"}, "without_tenant"),
        ({"account_id": "a" * 256}, "account_id"),
        ({"account_id": "a\x00b"}, "account_id"),
        ({"client_id": "a" * 129}, "client_id"),
        ({"correlation_id": "a" * 129}, "correlation_id"),
        ({"kid": "a" * 129}, "kid"),
        ({"kind": "unknown"}, "kind"),
        ({"since_0": "2026-02-30", "since_1": "00:00:00"}, "since"),
        ({"since_0": "2026-02-03", "since_1": ""}, "since"),
        ({"until_0": "2026-02-03", "until_1": "25:00"}, "until"),
        (
            {"since_0": "2026-02-03", "since_1": "00:00", "until_0": "2026-02-03", "until_1": "00:00"},
            "until",
        ),
    ],
)
def test_an_invalid_search_is_an_error_at_its_field(
    admin_client: Client, trail: ClientApp, terms: dict[str, str], field: str
) -> None:
    page = search(admin_client, **terms)
    assert page.status_code == 200
    assert list(page.context["form"].errors) == [field]
    assert "table" not in page.context


FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("time", [FIRST, LAST])
def test_any_time_can_be_searched(admin_client: Client, trail: ClientApp, time: datetime) -> None:
    for name in ("since", "until"):
        assert search(admin_client, **time_fields(name, time)).status_code == 200
        page = search(admin_client, account_id="account-1", **time_fields(name, time))
        is_all = (name, time) in {("since", FIRST), ("until", LAST)}
        assert len(kinds(page)) == (4 if is_all else 0)


def test_only_the_newest_hundred_events_are_shown(admin_client: Client, trail: ClientApp) -> None:
    assert "The newest 100 are shown." not in search(admin_client).content.decode()
    now = get_database_time()
    Event.unscoped.bulk_create(
        Event(
            tenant_id="nagra", kind="refused", created_at=now - timedelta(seconds=number), reason=f"{number}"
        )
        for number in range(2, 202)
    )
    page = search(admin_client, kind="refused")
    assert len(rows(page)) == 100
    assert [row["reason"] for row in rows(page)][1:] == [str(number) for number in range(2, 101)]
    assert "More than 100 rows match. The newest 100 are shown." in page.content.decode()


def test_an_id_with_white_space_is_found_as_it_is_and_without_it(
    admin_client: Client, nagra: HeadEnd
) -> None:
    for account_id in ("account-1", " account-1 "):
        add_event(account_id=account_id)
    found = [row["account ID"] for row in rows(search(admin_client, account_id=" account-1 "))]
    assert found == [" account-1 ", "account-1"]
    assert [row["account ID"] for row in rows(search(admin_client, account_id="account-1\t"))] == [
        "account-1"
    ]


# Tenants


@pytest.fixture
def call_of_all(trail: ClientApp, sunrise: HeadEnd) -> None:
    """An event of nagra, one of sunrise and one of no tenant, with the same correlation ID."""
    for tenant_id in ("nagra", "sunrise", None):
        add_event(tenant_id, correlation_id="call-of-all", account_id=f"account of {tenant_id}")


def tenants_found(browser: Client, **terms: str) -> set[str]:
    return {row["tenant"] for row in rows(search(browser, **terms))}


def test_a_correlation_id_is_searched_in_the_tenants_of_the_user(
    admin_client: Client, call_of_all: None
) -> None:
    call = {"tenant": "", "correlation_id": "call-of-all"}
    assert tenants_found(admin_client, **call) == {"nagra", "sunrise", "—"}
    assert tenants_found(person("auditor", "nagra"), **call) == {"nagra"}
    assert tenants_found(person("auditor", "nagra", "sunrise"), **call) == {"nagra", "sunrise"}
    assert tenants_found(person("auditor"), **call) == set()
    assert tenants_found(admin_client, correlation_id="call-of-all") == {"nagra"}
    account = {"account_id": "account of sunrise"}
    assert tenants_found(admin_client, **call, **account) == {"sunrise"}
    assert tenants_found(person("support", "nagra"), **call, **account) == set()


def test_a_user_with_many_tenants_has_to_choose_one(admin_client: Client, call_of_all: None) -> None:
    Tenant.objects.bulk_create(Tenant(id=f"crowd-{number}", name="x") for number in range(998))
    call = {"tenant": "", "correlation_id": "call-of-all"}
    assert len(tenants_found(admin_client, **call)) == 3
    Tenant.objects.bulk_create([Tenant(id="one-too-many", name="x")])
    page = search(admin_client, **call)
    assert page.context["form"].errors == {"tenant": ["Choose a tenant: there are more than 1000."]}
    assert tenants_found(admin_client, correlation_id="call-of-all") == {"nagra"}


def test_events_of_no_tenant_are_only_for_users_who_may_see_all_tenants(call_of_all: None) -> None:
    event = Event.unscoped.get(tenant=None)
    address = f"{LIST}{event.pk}/change/"
    terms = {"tenant": "", "without_tenant": "on"}
    browser = person("auditor", "nagra", "sunrise")
    assert "without_tenant" not in browser.get(LIST).content.decode()
    assert search(browser, **terms).context["form"].errors["tenant"]
    assert browser.get(address).status_code == 404
    assert browser.get(LIST, {"event": event.pk}).status_code == 404

    add_permissions("auditor of nagra sunrise", "all_tenants")
    assert "Events of no tenant" in browser.get(LIST).content.decode()
    result = search(browser, **terms)
    assert {row["tenant"] for row in rows(result)} == {"—"}
    assert "account of None" in browser.get(address).content.decode()
    assert [row["tenant"] for row in rows(browser.get(LIST, {"event": event.pk}))] == [
        "—",
        "sunrise",
        "nagra",
    ]

    User.objects.get(username="auditor of nagra sunrise").user_permissions.clear()
    page = browser.get(result.redirect_chain[-1][0])
    assert rows(page) == [], "the search is in the session, the permission is not"


def test_a_result_excludes_tenants_that_are_no_longer_assigned(call_of_all: None) -> None:
    browser = person("support", "nagra", "sunrise")
    of_sunrise = search(browser, tenant="sunrise").redirect_chain[-1][0]
    of_both = search(browser, tenant="", correlation_id="call-of-all").redirect_chain[-1][0]
    assert len(rows(browser.get(of_sunrise))) == 1
    assert len(rows(browser.get(of_both))) == 2
    Assignment.unscoped.filter(tenant_id="sunrise").delete()
    assert rows(browser.get(of_sunrise)) == []
    assert [row["tenant"] for row in rows(browser.get(of_both))] == ["nagra"]


def test_the_url_of_a_result_contains_no_search_terms(admin_client: Client, trail: ClientApp) -> None:
    result = search(admin_client, account_id="account-1", kind="signed_on")
    ((address, _),) = result.redirect_chain
    assert address.startswith(f"{LIST}?result=")
    assert "account-1" not in address
    text = admin_client.get(address).content.decode()
    assert 'value="account-1"' in text, "the form shows the search terms"
    assert '<option value="nagra" selected>' in text
    assert '<option value="signed_on" selected>Signed on</option>' in text
