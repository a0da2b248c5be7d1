"""The page that explains requests, in the admin. tests/live/test_explain.py has the refusals of a server."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from ags.database.clock import get_database_time
from ags.operations.groups import GROUPS
from ags.sessions.admin import timeouts
from ags.sessions.models import Device, Event, SessionToken
from tenants.models import Assignment, Key, Service
from tests.support.audit_search import (
    ENDED,
    ISSUED,
    LIST,
    REFUSED,
    REUSED,
    SIGNED_ON,
    add_event,
    add_permissions,
    rows,
    search,
)
from tests.support.clients import ClientApp, HeadEnd
from tests.support.explanation_pages import PAGE, ExplanationPage, explain_on_page
from tests.support.staff import person

REFUSAL: dict[str, Any] = {
    "reason": "token_expired",
    "service": "Customer Auth Service",
    "kid": "nagra-key-1",
    "client_address": "198.51.100.7",
    "account_id": "account-4711",
    "actor": "anna",
    "details": {
        "method": "POST",
        "route": "/ags/getSessionToken",
        "status": 401,
        "code": 40104,
        "message": "The token <b>has expired</b>.",
        "facts": {"name": "exp", "exp": -312, "skew": 30},
    },
}


def test_the_cause_the_side_at_fault_and_the_remedy_come_first(nagra: HeadEnd) -> None:
    event = add_event(correlation_id="call-9", **REFUSAL)
    page = explain_on_page(person("support", "nagra"), "call-9")
    time = f"{event.created_at:%Y-%m-%d %H:%M:%S} UTC"
    assert page.headings == ["Explain a request", f"{time} POST /ags/getSessionToken"]
    (shown,) = page.explanations
    assert shown.cause.startswith("The token expired 312 seconds before the clock of AGS")
    assert list(shown.fault.items()) == [
        ("Failed check", "times of the token"),
        ("At fault", "head-end"),
        (
            "What to do",
            "Synchronize the clock of the signer with that of AGS, compute exp when signing, and send the "
            "token at once.",
        ),
    ]
    assert shown.checks[12:15] == [
        ("passed", "audience"),
        ("FAILED", "times of the token"),
        ("not reached", "other claims"),
    ]
    assert list(shown.head.items()) == [
        ("Correlation ID", "call-9"),
        ("Time", time),
        ("Request", "POST /ags/getSessionToken"),
        ("Tenant", "nagra"),
        ("Service", "Customer Auth Service"),
        ("Key ID (kid)", "nagra-key-1"),
        ("Client address", "198.51.100.7"),
        ("Response", "401, code 40104: The token <b>has expired</b>."),
        ("Reason", "token_expired"),
    ]
    order = [shown.cause.partition(";")[0], "At fault", "What to do", "312 seconds", "FAILED", "nagra-key-1"]
    places = [page.text.index(text) for text in order[:3]] + [page.text.rindex(text) for text in order[3:]]
    assert places == sorted(places)
    for hidden in ("account-4711", "anna", "<b>has expired"):
        assert hidden not in page.text


def test_several_requests_have_a_heading_each_the_newest_first(nagra: HeadEnd) -> None:
    now = get_database_time()
    times = [now - timedelta(minutes=number) for number in range(3)]
    for time in times:
        add_event(correlation_id="repeated", created_at=time, **REFUSAL)
    page = explain_on_page(person("support", "nagra"), "repeated")
    assert [heading[:19] for heading in page.headings[1:]] == [f"{time:%Y-%m-%d %H:%M:%S}" for time in times]
    assert len(page.explanations) == 3


def test_a_grant_is_explained_without_account_and_token(app: ClientApp) -> None:
    token = app.head_end.present(app.head_end.token(), x_correlation_id="granted").json()["sessionToken"]
    page = explain_on_page(person("support", "nagra"), "granted")
    (shown,) = page.explanations
    assert (shown.cause, shown.fault) == ("AGS issued a session token.", {})
    assert "It has not been redeemed, and is valid until 2" in page.text
    assert {outcome for outcome, _ in shown.checks} == {"passed"}
    for hidden in ("account-1", token):
        assert hidden not in page.text


def explain_reason(reason: str, **fields: Any) -> ExplanationPage:
    """Explain a refusal with this reason."""
    add_event(correlation_id="call-9", **{**REFUSAL, "reason": reason, **fields})
    return explain_on_page(person("support", "nagra"), "call-9")


@pytest.mark.parametrize(
    ("sent", "is_enabled", "side", "state"),
    [
        ("Customer Auth Service", False, "configuration of the tenant in AGS", "Service” is disabled now."),
        ("Customer Auth Service", True, "head-end", "Service” is enabled now."),
        (
            "customer AUTH service",
            True,
            "head-end",
            "The tenant has the service “Customer Auth Service”: upper and lower case differ.",
        ),
        ("Another", True, "head-end", None),
    ],
)
def test_a_refusal_because_of_a_service_says_what_is_configured_now(
    nagra: HeadEnd, sunrise: HeadEnd, sent: str, is_enabled: bool, side: str, state: str | None
) -> None:
    Service.objects.for_tenant("nagra").update(enabled=is_enabled)
    Service.objects.for_tenant("sunrise").update(name="Another")
    page = explain_reason("service_not_available", service=sent)
    (shown,) = page.explanations
    assert shown.fault["At fault"] == side
    if state is None:
        assert "now." not in page.text
        assert "Another”" not in page.text
    else:
        assert state in page.text


@pytest.mark.parametrize("state", ["staged", "revoked"])
def test_a_refusal_because_of_a_key_says_its_state_and_dates(nagra: HeadEnd, state: str) -> None:
    not_after = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    Key.objects.for_tenant("nagra").update(state=state, not_after=not_after)
    page = explain_reason("key_not_in_force")
    assert f"The key is {state} now, Not after 2030-01-02 03:04:05 UTC." in page.text


@pytest.mark.parametrize(
    ("status", "changed", "sentence"),
    [
        ("deleted", {}, "Staff have deleted the device with this clientId."),
        ("enabled", {"account_id": "account-2"}, "The device with this clientId is of another account."),
        ("enabled", {"client_id": "unknown"}, "The tenant has no device with this clientId now."),
    ],
)
def test_a_refusal_because_of_a_device_says_what_is_stored_about_it(
    app: ClientApp, status: str, changed: dict[str, str], sentence: str
) -> None:
    app.sign_on()
    device = Device.unscoped.get()
    Device.unscoped.update(status=status)
    ids = {"client_id": device.client_id, "account_id": "account-1", **changed}
    page = explain_reason("device_unknown", **ids)
    assert sentence in page.text
    for hidden in ("account-1", "account-2", device.client_id):
        assert hidden not in page.text


def test_a_refusal_after_the_end_of_the_sign_on_says_why_it_ended(app: ClientApp) -> None:
    app.sign_on()
    assert app.sign_out().status_code == 200
    page = explain_reason("sign_on_ended", client_id=Device.unscoped.get().client_id)
    assert re.search(r"The sign-on ended at \d{4}-\d\d-\d\d [\d:]{8} UTC \(signed_out\)\.", page.text)


def test_an_id_is_found_in_upper_case(app: ClientApp) -> None:
    """AGS creates them in lower case."""
    correlation_id = "9b2dc4e2-72c8-4c39-9a02-4b70e9b0a1f6"
    app.head_end.present(app.head_end.token(), x_correlation_id=correlation_id)
    add_event(correlation_id=correlation_id, **REFUSAL)
    page = explain_on_page(person("support", "nagra"), correlation_id.upper())
    assert len(page.explanations) == 2


def test_the_page_says_why_nothing_may_be_found(nagra: HeadEnd) -> None:
    for tenant_id, number in (("nagra", 15), ("sunrise", 100)):
        add_event(tenant_id, kind="omitted", details={"number": number})
    page = explain_on_page(person("support", "nagra"), "<i>nothing</i>")
    assert page.headings == ["Explain a request", "Nothing is stored about <i>nothing</i>"]
    assert "15 were only counted" in page.text
    assert page.text.count('<li class="mb-2">') == 5


@pytest.mark.parametrize("correlation_id", ["", "c" * 129, "a\x00b"])
def test_an_invalid_correlation_id_is_an_error_of_the_form(nagra: HeadEnd, correlation_id: str) -> None:
    page = explain_on_page(person("support", "nagra"), correlation_id)
    assert list(page.response.context["form"].errors) == ["correlation_id"]
    assert page.explanations == []


def test_the_url_of_a_result_does_not_contain_the_correlation_id(nagra: HeadEnd) -> None:
    add_event(correlation_id="call-9", **REFUSAL)
    page = explain_on_page(person("support", "nagra"), " call-9\n")
    ((address, _),) = page.response.redirect_chain
    assert address.startswith(f"{PAGE}?result=")
    assert "call-9" not in address
    assert len(page.explanations) == 1


# Tenants and permissions


@pytest.mark.parametrize("group", GROUPS)
def test_staff_find_requests_of_their_tenants_only(nagra: HeadEnd, sunrise: HeadEnd, group: str) -> None:
    for tenant_id in ("nagra", "sunrise", None):
        add_event(tenant_id, correlation_id="call-of-all", **REFUSAL)
        add_event(tenant_id, correlation_id=f"of {tenant_id}", **REFUSAL)
    unknown = {"tenant": "sunrise", **REFUSAL["details"]}
    add_event(None, correlation_id="of disabled", **REFUSAL | {"details": unknown})
    sunrise.present(sunrise.token(), x_correlation_id="granted-by-sunrise")
    browser = person(group, "nagra")
    page = explain_on_page(browser, "call-of-all")
    assert [shown.head["Tenant"] for shown in page.explanations] == ["nagra"]
    assert len(explain_on_page(browser, "of nagra").explanations) == 1
    for correlation_id in ("of sunrise", "of None", "of disabled", "granted-by-sunrise"):
        assert explain_on_page(browser, correlation_id).explanations == []
    other = person(group, "sunrise")
    assert len(explain_on_page(other, "of disabled").explanations) == 1
    assert len(explain_on_page(other, "granted-by-sunrise").explanations) == 1
    add_permissions(f"{group} of nagra", "all_tenants")
    assert len(explain_on_page(browser, "call-of-all").explanations) == 3


def test_a_result_excludes_tenants_that_are_no_longer_assigned(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    add_event("sunrise", correlation_id="call-9", **REFUSAL)
    browser = person("support", "nagra", "sunrise")
    page = explain_on_page(browser, "call-9")
    assert len(page.explanations) == 1
    address = page.response.redirect_chain[-1][0]
    Assignment.unscoped.filter(tenant_id="sunrise").delete()
    assert ExplanationPage(browser.get(address)).explanations == []


def test_the_page_needs_the_permission_to_view_events(trail: ClientApp) -> None:
    user = User.objects.create_user("other", is_staff=True)
    Assignment(tenant_id="nagra", user=user).save()
    add_permissions("other", "view_sessiontoken", "view_account")
    browser = Client()
    browser.force_login(user)
    token = SessionToken.unscoped.get()
    assert browser.get(PAGE).status_code == 403
    assert browser.post(PAGE, {"correlation_id": "call-1"}).status_code == 403
    assert browser.get(PAGE, {"sessiontoken": token.pk}).status_code == 403
    assert PAGE not in browser.get("/admin/").content.decode()
    assert PAGE not in browser.get(f"/admin/ags_sessions/sessiontoken/{token.pk}/change/").content.decode()
    add_permissions("other", "view_event")
    assert browser.get(PAGE).status_code == 200
    assert PAGE in browser.get("/admin/").content.decode(), "it is in the menu"


def test_rows_have_no_pages_here(admin_client: Client, trail: ClientApp) -> None:
    pk = Event.unscoped.filter(kind="refused").get().pk
    before = list(Event.unscoped.values())
    for act in ("change", "delete", "history"):
        for method in (admin_client.get, admin_client.post):
            assert method(f"{PAGE}{pk}/{act}/").status_code in (403, 404)
    assert admin_client.post(f"{PAGE}add/", {"kind": "refused"}).status_code == 403
    assert list(Event.unscoped.values()) == before


# Links


def test_events_lead_to_the_explanation_of_their_request(trail: ClientApp) -> None:
    browser = person("support", "nagra")
    causes = {}
    for row in rows(search(browser)):
        address = row["explanation"].partition('href="')[2].partition('"')[0]
        assert address.startswith(PAGE)
        assert row["correlation ID"] not in address
        causes[row["kind"]] = [shown.cause for shown in ExplanationPage(browser.get(address)).explanations]
    assert causes == {
        ISSUED: ["AGS issued a session token."],
        SIGNED_ON: ["The device signed on."],
        ENDED: ["Sign-on ended (signed_out)."],
        REFUSED: ["The service has no key with the key ID (kid) other-key."],
        REUSED: [],  # the test client stores no refusal
    }


def test_pages_of_rows_lead_to_the_explanation(trail: ClientApp, sunrise: HeadEnd) -> None:
    browser, other = person("support", "nagra"), person("support", "sunrise")
    token, event = SessionToken.unscoped.get(), Event.unscoped.filter(kind="refused").get()
    for page, queries in {
        f"/admin/ags_sessions/sessiontoken/{token.pk}/change/": ("sessiontoken", "redemption"),
        f"{LIST}{event.pk}/change/": ("event",),
    }.items():
        text = browser.get(page).content.decode()
        for query in queries:
            address = f"{PAGE}?{query}={page.split('/')[-3]}"
            assert f'href="{address}">Explain</a>' in text
            assert len(ExplanationPage(browser.get(address)).explanations) == 1
            assert other.get(address).status_code == 404


@pytest.mark.postgresql
def test_a_search_that_takes_too_long_says_so(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(execute: Any, sql: str, *rest: Any) -> Any:
        if 'FROM "ags_sessions_event"' in sql:
            return execute("SELECT pg_sleep(60)", None, *rest[1:])
        return execute(sql, *rest)

    browser = person("support", "nagra")
    monkeypatch.setattr(timeouts, "SEARCH_TIMEOUT", 50)
    with connection.execute_wrapper(wait):
        page = explain_on_page(browser, "call-9")
    assert "There are too many events to search." in page.text
    assert page.headings == ["Explain a request"]
