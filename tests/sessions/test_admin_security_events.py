"""Admin pages of security events."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import AccountChoice, Device, SecurityEvent, SessionToken
from tenants.models import Service, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person

LIST = "/admin/ags_sessions/securityevent/"


def reuse(head_end: HeadEnd, account: str = "account-1") -> None:
    """Redeem a session token twice."""
    app = ClientApp(head_end)
    token = head_end.present(head_end.token(OpfAccountId=account)).json()["sessionToken"]
    assert [app.redeem(token).status_code for _ in range(2)] == [201, 401]


@pytest.fixture
def events(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """One event for each of two accounts of nagra, and one of sunrise."""
    for head_end, account in ((nagra, "account-1"), (nagra, "account-2"), (sunrise, "account-1")):
        reuse(head_end, account)


def listed(response: Any) -> list[tuple[str, str]]:
    return [(row[2], row[3]) for row in response.context["table"]["rows"]]


def test_the_newest_events_are_shown_without_a_search(admin_client: Client, events: None) -> None:
    page = admin_client.get(LIST)
    assert listed(page) == [("sunrise", "account-1"), ("nagra", "account-2"), ("nagra", "account-1")]
    assert "A redeemed session token was presented again" in page.content.decode()


def test_events_can_be_filtered_by_tenant_and_account(admin_client: Client, events: None) -> None:
    of_nagra = [("nagra", "account-2"), ("nagra", "account-1")]
    assert listed(admin_client.get(LIST, {"tenant": "nagra"})) == of_nagra
    assert listed(admin_client.post(LIST, {"tenant": "nagra"}, follow=True)) == of_nagra
    assert (
        listed(admin_client.post(LIST, {"tenant": "nagra", "account_id": "account-1"}, follow=True))
        == of_nagra[1:]
    )
    assert listed(admin_client.post(LIST, {"tenant": "nagra", "account_id": "account"}, follow=True)) == []


@pytest.mark.parametrize(
    "criteria", [{"account_id": "account-1"}, {"tenant": "nobody"}, {"tenant": "a" * 65}, {"tenant": "{}"}]
)
def test_an_invalid_tenant_is_an_error(admin_client: Client, events: None, criteria: dict[str, str]) -> None:
    page = admin_client.post(LIST, criteria, follow=True)
    assert page.context["form"].errors["tenant"]
    assert "table" not in page.context
    assert "account-2" not in page.content.decode()


def test_staff_see_only_events_of_their_tenants(events: None) -> None:
    browser = person("auditor", "nagra")
    assert {tenant for tenant, _ in listed(browser.get(LIST))} == {"nagra"}
    assert browser.get(LIST, {"tenant": "sunrise"}).context["form"].errors
    of_sunrise = SecurityEvent.objects.for_tenant("sunrise").get()
    assert browser.get(f"{LIST}{of_sunrise.pk}/change/").status_code == 404
    assert not listed(person("auditor").get(LIST))


def test_a_page_links_to_its_subject(admin_client: Client, app: ClientApp, nagra: HeadEnd) -> None:
    reuse(nagra)
    event = SecurityEvent.objects.for_tenant("nagra").get()
    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    token = SessionToken.objects.for_tenant("nagra").get()
    assert f"/admin/ags_sessions/sessiontoken/{token.pk}/change/" in page

    tenant = Tenant.objects.get()
    tenant.refresh_grace = 0
    tenant.save()
    app.sign_on()
    used = app.tokens["refresh_token"]
    assert app.refresh().status_code == 200
    assert app.refresh(used).status_code == 401
    event = SecurityEvent.objects.for_tenant("nagra").get(kind="refresh_token_reused")
    device = Device.objects.for_tenant("nagra").get(client_id=app.tokens["client_id"])
    address = f"{LIST}{event.pk}/change/"
    assert f"/admin/ags_sessions/device/{device.pk}/change/" in admin_client.get(address).content.decode()
    app.sign_on(clientId=device.client_id)
    assert "was replaced by a later one" in admin_client.get(address).content.decode()


def test_a_purged_session_token_is_not_linked(admin_client: Client, nagra: HeadEnd) -> None:
    reuse(nagra)
    event = SecurityEvent.objects.for_tenant("nagra").get()
    SessionToken.unscoped.all().delete()
    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    assert f"Session token {event.subject} (purged)" in page
    assert "/admin/ags_sessions/sessiontoken/" + event.subject not in page


def test_a_reused_account_choice_is_described(admin_client: Client, app: ClientApp, trial: Service) -> None:
    token, _ = app.request_choices()
    assert [app.choose_account(token).status_code for _ in range(2)] == [201, 401]
    choice, event = AccountChoice.unscoped.get(), SecurityEvent.unscoped.get()
    address = f"{LIST}{event.pk}/change/"
    page = admin_client.get(address).content.decode()
    assert f"Account choice {choice.pk}, created by service Trial at " in page
    assert f"correlation ID {choice.correlation_id}" in page
    assert token.partition(".")[0] not in page
    AccountChoice.unscoped.all().delete()
    page = admin_client.get(address).content.decode()
    assert f"Account choice {choice.pk} (purged)" in page


def test_only_the_newest_hundred_events_are_read(admin_client: Client, nagra: HeadEnd) -> None:
    SecurityEvent.unscoped.bulk_create(
        SecurityEvent(
            tenant_id="nagra",
            kind="session_token_reused",
            subject=str(number),
            account_id=f"account-{number}",
            correlation_id="x",
            latest_at=f"2001-01-01T00:{number // 60:02}:{number % 60:02}Z",
        )
        for number in range(2000)
    )
    for criteria in ({}, {"tenant": "nagra"}):
        with CaptureQueriesContext(connection) as queries:
            page = admin_client.get(LIST, criteria)
        assert [account for _, account in listed(page)] == [f"account-{1999 - n}" for n in range(100)]
        assert "The newest 100 are shown." in page.content.decode()
        (query,) = [q["sql"] for q in queries if 'FROM "ags_sessions_securityevent"' in q["sql"]]
        assert "LIMIT 101" in query


def test_events_are_read_only(admin_client: Client, events: None) -> None:
    event = SecurityEvent.objects.for_tenant("sunrise").get()
    assert admin_client.post(LIST + "add/", {}).status_code == 403
    for act in ("change", "delete"):
        assert admin_client.post(f"{LIST}{event.pk}/{act}/", {"post": "yes", "times": "9"}).status_code == 403
    assert admin_client.get(f"{LIST}{event.pk}/history/").status_code == 404
    assert SecurityEvent.objects.for_tenant("sunrise").get().times == 1
