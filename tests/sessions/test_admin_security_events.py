"""The pages of security events: the newest of all tenants, of one, or of one account."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import AccountChoice, Device, SecurityEvent, SessionToken
from tenants.models import Service, Tenant
from tests.conftest import ClientApp, HeadEnd, person

LIST = "/admin/ags_sessions/securityevent/"


def reuse(head_end: HeadEnd, account: str = "account-1") -> None:
    """Redeem a session token twice."""
    app = ClientApp(head_end)
    token = head_end.present(head_end.token(OpfAccountId=account)).json()["sessionToken"]
    assert [app.redeem(token).status_code for _ in range(2)] == [201, 401]


@pytest.fixture
def events(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """One of two accounts of nagra each, and one of sunrise."""
    for head_end, account in ((nagra, "account-1"), (nagra, "account-2"), (sunrise, "account-1")):
        reuse(head_end, account)


def told(response: Any) -> list[tuple[str, str]]:
    return [(row[2], row[3]) for row in response.context["table"]["rows"]]


def test_the_newest_are_shown_at_once(admin_client: Client, events: None) -> None:
    page = admin_client.get(LIST)
    assert told(page) == [("sunrise", "account-1"), ("nagra", "account-2"), ("nagra", "account-1")]
    assert "A spent session token was presented again" in page.content.decode()


def test_the_list_is_narrowed_to_a_tenant_or_to_an_account_of_it(admin_client: Client, events: None) -> None:
    of_nagra = [("nagra", "account-2"), ("nagra", "account-1")]
    assert told(admin_client.get(LIST, {"tenant": "nagra"})) == of_nagra
    assert told(admin_client.post(LIST, {"tenant": "nagra"}, follow=True)) == of_nagra
    assert (
        told(admin_client.post(LIST, {"tenant": "nagra", "account_id": "account-1"}, follow=True))
        == of_nagra[1:]
    )
    assert told(admin_client.post(LIST, {"tenant": "nagra", "account_id": "account"}, follow=True)) == []


@pytest.mark.parametrize(
    "known", [{"account_id": "account-1"}, {"tenant": "nobody"}, {"tenant": "a" * 65}, {"tenant": "{}"}]
)
def test_what_is_no_tenant_is_told(admin_client: Client, events: None, known: dict[str, str]) -> None:
    page = admin_client.post(LIST, known, follow=True)
    assert page.context["form"].errors["tenant"]
    assert "table" not in page.context
    assert "account-2" not in page.content.decode()


def test_staff_see_those_of_their_tenants(events: None) -> None:
    browser = person("auditor", "nagra")
    assert {tenant for tenant, _ in told(browser.get(LIST))} == {"nagra"}
    assert browser.get(LIST, {"tenant": "sunrise"}).context["form"].errors
    of_sunrise = SecurityEvent.objects.for_tenant("sunrise").get()
    assert browser.get(f"{LIST}{of_sunrise.pk}/change/").status_code == 404
    assert not told(person("auditor").get(LIST))


def test_a_page_leads_to_what_it_is_about(admin_client: Client, app: ClientApp, nagra: HeadEnd) -> None:
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
    assert "has replaced" in admin_client.get(address).content.decode()


def test_a_session_token_that_is_purged_is_named_and_not_linked(admin_client: Client, nagra: HeadEnd) -> None:
    reuse(nagra)
    event = SecurityEvent.objects.for_tenant("nagra").get()
    SessionToken.unscoped.all().delete()
    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    assert f"Session token {event.subject}, which is purged" in page
    assert "/admin/ags_sessions/sessiontoken/" + event.subject not in page


def test_a_choice_that_was_used_again_is_named(admin_client: Client, app: ClientApp, trial: Service) -> None:
    token, _ = app.choices()
    assert [app.choose(token).status_code for _ in range(2)] == [201, 401]
    choice, event = AccountChoice.unscoped.get(), SecurityEvent.unscoped.get()
    address = f"{LIST}{event.pk}/change/"
    page = admin_client.get(address).content.decode()
    assert f"Choice of an account {choice.pk}, offered by service Trial at " in page
    assert f"under the correlation ID {choice.correlation_id}" in page
    assert token.partition(".")[0] not in page
    AccountChoice.unscoped.all().delete()
    page = admin_client.get(address).content.decode()
    assert f"Choice of an account {choice.pk}, which is purged" in page


def test_of_many_the_newest_hundred_are_read(admin_client: Client, nagra: HeadEnd) -> None:
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
    for known in ({}, {"tenant": "nagra"}):
        with CaptureQueriesContext(connection) as queries:
            page = admin_client.get(LIST, known)
        assert [account for _, account in told(page)] == [f"account-{1999 - n}" for n in range(100)]
        assert "these are the newest 100" in page.content.decode()
        (asked,) = [q["sql"] for q in queries if 'FROM "ags_sessions_securityevent"' in q["sql"]]
        assert "LIMIT 101" in asked


def test_events_are_read_only(admin_client: Client, events: None) -> None:
    event = SecurityEvent.objects.for_tenant("sunrise").get()
    assert admin_client.post(LIST + "add/", {}).status_code == 403
    for act in ("change", "delete"):
        assert admin_client.post(f"{LIST}{event.pk}/{act}/", {"post": "yes", "times": "9"}).status_code == 403
    assert admin_client.get(f"{LIST}{event.pk}/history/").status_code == 404
    assert SecurityEvent.objects.for_tenant("sunrise").get().times == 1
