"""Links that explain one request: created, found and revoked in the admin."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from ags.database.clock import get_database_time
from ags.explanations.links import build_path
from ags.explanations.models import ExplanationLink
from ags.sessions.models import Event, SessionToken
from tenants.models import Tenant
from tests.support.audit_search import add_event, add_permissions
from tests.support.clients import ClientApp, HeadEnd
from tests.support.explanation_pages import (
    ADD,
    LINKS,
    PAGE,
    ExplanationPage,
    add_refusal,
    create_link_to_refusal,
    explain_on_page,
    find_events,
)
from tests.support.staff import person


def create_on_page(browser: Client, correlation_id: str) -> tuple[str, str]:
    """Press the button; return the text of the page, and the URL that it shows."""
    (event,) = find_events(explain_on_page(browser, correlation_id))
    page = browser.post(ADD, {"event": event})
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    text = page.content.decode()
    (url,) = re.findall('<code id="link">(.*?)</code>', text)
    return text, html.unescape(url)


# Creating


def test_staff_create_a_link_that_opens_without_an_account(nagra: HeadEnd) -> None:
    event = add_refusal()
    browser = person("support", "nagra")
    text, url = create_on_page(browser, "call-9")
    assert url.startswith("http://testserver/explanations/")
    link = ExplanationLink.unscoped.get()
    assert (link.tenant_id, link.event, link.correlation_id) == ("nagra", f"event:{event.pk}", "call-9")
    assert (link.created_by, link.revoked_at, link.state) == ("support of nagra", None, "valid")
    left = link.expires_at - get_database_time()
    assert timedelta(days=7) - timedelta(minutes=5) < left <= timedelta(days=7)
    assert f"{link.expires_at:%Y-%m-%d %H:%M:%S} UTC" in text
    assert f"{LINKS}{link.pk}/change/" in text, "there it can be revoked"
    page = ExplanationPage(Client().get(url))
    (shown,) = page.explanations
    assert shown.cause.startswith("The token expired 312 seconds before the clock of AGS")
    assert shown.fault["At fault"] == "head-end"
    assert ("FAILED", "times of the token") in shown.checks
    assert shown.head["Correlation ID"] == "call-9"
    assert "reveals reasons that the response of the gateway withheld" in page.text
    assert f"The link is valid until {link.expires_at:%Y-%m-%d %H:%M:%S} UTC." in page.text
    for hidden in ("account-4711", "support of nagra", url.rpartition("/")[2]):
        assert hidden not in page.text
    listed = browser.get(LINKS).content.decode()
    assert "call-9" in listed
    assert url.rpartition("/")[2] not in listed + browser.get(f"{LINKS}{link.pk}/change/").content.decode()


def test_creating_and_revoking_a_link_are_events(nagra: HeadEnd) -> None:
    add_refusal()
    browser = person("support", "nagra")
    _, url = create_on_page(browser, "call-9")
    link = ExplanationLink.unscoped.get()
    confirmation = browser.get(f"{LINKS}{link.pk}/revoke/").content.decode()
    assert "support of nagra created it for the request call-9 of nagra." in confirmation
    assert Client().get(url).status_code == 200, "a GET revokes nothing"
    assert browser.post(f"{LINKS}{link.pk}/revoke/").status_code == 302
    assert Client().get(url).status_code == 404
    assert ExplanationLink.unscoped.get().state == "revoked"
    first = ExplanationLink.unscoped.get().revoked_at
    browser.post(f"{LINKS}{link.pk}/revoke/")
    assert ExplanationLink.unscoped.get().revoked_at == first
    events = Event.unscoped.filter(kind="staff_action", details__model="explanationlink").order_by("pk")
    assert [(event.reason, event.actor, event.tenant_id) for event in events] == [
        ("add", "support of nagra", "nagra"),
        ("revoke", "support of nagra", "nagra"),
    ]
    assert {event.details["object"] for event in events} == {f"Link {link.pk}"}
    assert not [event for event in events if url.rpartition(".")[2] in str(event.details)]


def test_a_grant_can_be_explained_without_what_has_happened_since(app: ClientApp) -> None:
    issued = app.head_end.present(app.head_end.token(), x_correlation_id="granted").json()["sessionToken"]
    device = {"parameters": [{"name": "sessionToken", "value": issued}], "deviceInformation": {}}
    assert app.call("/ags/signOnWithSessionToken", device, x_correlation_id="redeemed").status_code == 201
    browser = person("support", "nagra")
    client_id = str(SessionToken.unscoped.get().client_id)
    for correlation_id, cause, other in (
        ("granted", "AGS issued a session token.", "redeemed"),
        ("redeemed", "The device signed on.", "granted"),
    ):
        assert "It was redeemed at" in explain_on_page(browser, "granted").text
        _, url = create_on_page(browser, correlation_id)
        page = ExplanationPage(Client().get(url))
        assert [shown.cause for shown in page.explanations] == [cause]
        assert page.headings == []
        for hidden in ("account-1", issued, client_id, other, "It was redeemed", "signed on until"):
            assert hidden not in page.text


def test_a_link_explains_one_request_only(nagra: HeadEnd) -> None:
    for kid in ("first-key", "second-key"):
        add_refusal(kid=kid)
    browser = person("support", "nagra")
    second, first = find_events(explain_on_page(browser, "call-9"))
    for event, kid, other in ((first, "first-key", "second-key"), (second, "second-key", "first-key")):
        browser.post(ADD, {"event": event})
        link = ExplanationLink.unscoped.get(event=event)
        text = Client().get(build_path(link)).content.decode()
        assert kid in text
        assert other not in text


def test_only_requests_of_a_tenant_with_checks_have_a_link(nagra: HeadEnd) -> None:
    unknown = add_refusal(None, "unknown")
    action = add_event(kind="staff_action", correlation_id="action", actor="anna", reason="disable")
    omitted = add_event(kind="omitted", details={"number": 1})
    browser = person("operator staff", "nagra")
    add_permissions("operator staff of nagra", "all_tenants")
    for event in (unknown, action):
        page = explain_on_page(browser, event.correlation_id)
        assert (len(page.explanations), find_events(page)) == (1, [])
    for event, status in ((unknown, 404), (action, 302), (omitted, 404)):
        assert browser.post(ADD, {"event": f"event:{event.pk}"}).status_code == status
    assert not ExplanationLink.unscoped.exists()


@pytest.mark.parametrize(
    "event",
    [
        *("", "event:", "event:0", "event:x", "event:٣", "event:1\n", "a\x00b"),
        *("event:" + "9" * 19, "event:" + "9" * 9000),
        *("session_token:1", "session_token:0:issued", "session_token:1:other", "security_event:1:1"),
    ],
)
def test_an_invalid_event_is_not_found(nagra: HeadEnd, event: str) -> None:
    assert person("support", "nagra").post(ADD, {"event": event}).status_code == 404
    assert not ExplanationLink.unscoped.exists()


def test_the_address_of_the_form_leads_to_the_search(nagra: HeadEnd) -> None:
    answer = person("support", "nagra").get(ADD)
    assert (answer.status_code, answer["Location"]) == (302, PAGE)


# Tenants and permissions


@pytest.mark.parametrize("group", ["operator staff", "support"])
def test_staff_create_links_to_requests_of_their_tenants_only(
    nagra: HeadEnd, sunrise: HeadEnd, group: str
) -> None:
    assert sunrise.present(sunrise.token()).status_code == 200
    token = SessionToken.objects.for_tenant("sunrise").get()
    events = [f"event:{add_refusal('sunrise').pk}", f"session_token:{token.pk}:issued"]
    browser, other = person(group, "nagra"), person(group, "sunrise")
    for event in events:
        assert browser.post(ADD, {"event": event}).status_code == 404
    assert not ExplanationLink.unscoped.exists()
    for event in events:
        assert other.post(ADD, {"event": event}).status_code == 200
    assert {link.tenant_id for link in ExplanationLink.unscoped.all()} == {"sunrise"}


def test_creating_needs_its_permission_and_that_to_view_events(nagra: HeadEnd) -> None:
    event = f"event:{add_refusal().pk}"
    auditor = person("auditor", "nagra")
    assert find_events(explain_on_page(auditor, "call-9")) == []
    assert [auditor.get(ADD).status_code, auditor.post(ADD, {"event": event}).status_code] == [403, 403]
    User.objects.create_user("other", is_staff=True)
    add_permissions("other", "add_explanationlink", "all_tenants")
    browser = Client()
    browser.force_login(User.objects.get(username="other"))
    assert browser.post(ADD, {"event": event}).status_code == 403
    assert not ExplanationLink.unscoped.exists()
    add_permissions("other", "view_event")
    assert browser.post(ADD, {"event": event}).status_code == 200


def test_a_link_is_read_only(nagra: HeadEnd, admin_client: Client) -> None:
    link = create_link_to_refusal()
    before = list(ExplanationLink.unscoped.values())
    for act in ("change", "delete"):
        form = {"expires_at_0": "2999-01-01", "expires_at_1": "00:00", "event": "event:1", "post": "yes"}
        assert admin_client.post(f"{LINKS}{link.pk}/{act}/", form).status_code == 403
    assert list(ExplanationLink.unscoped.values()) == before


def test_links_are_found_by_tenant_or_correlation_id(nagra: HeadEnd, admin_client: Client) -> None:
    create_link_to_refusal()
    for term, found in (("nagra", 1), ("call-9", 1), ("sunrise", 0), ("call", 0)):
        assert admin_client.get(LINKS, {"q": term}).context["cl"].result_count == found


def test_no_link_is_created_while_its_tenant_is_disabled(nagra: HeadEnd) -> None:
    event = add_refusal()
    Tenant.objects.filter(pk="nagra").update(enabled=False)
    page = person("support", "nagra").post(ADD, {"event": f"event:{event.pk}"}, follow=True)
    assert "A link needs a request with checks, of a tenant that is enabled." in page.content.decode()
    assert not ExplanationLink.unscoped.exists()
