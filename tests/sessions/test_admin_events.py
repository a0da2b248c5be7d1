"""Admin pages of events, and the links to and from them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from tenants.models import Assignment
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
)
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import create_platform
from tests.support.staff import person


def pages() -> list[tuple[str, Any]]:
    models = (Account, Device, SessionToken, SecurityEvent)
    return [(str(model._meta.model_name), model.unscoped.get()) for model in models]


def test_viewing_needs_its_permission(trail: ClientApp) -> None:
    user = User.objects.create_user("other", is_staff=True)
    Assignment(tenant_id="nagra", user=user).save()
    add_permissions("other", "view_securityevent", "view_sessiontoken", "view_account", "view_device")
    browser = Client()
    browser.force_login(user)
    event = Event.unscoped.filter(kind="refused").get()
    addresses = (LIST, f"{LIST}{event.pk}/change/")
    assert [browser.get(address).status_code for address in addresses] == [403, 403]
    assert browser.post(LIST, {"tenant": "nagra"}).status_code == 403
    for model, row in pages():
        assert LIST not in browser.get(f"/admin/ags_sessions/{model}/{row.pk}/change/").content.decode()
    add_permissions("other", "view_event", "view_tenant")
    assert [browser.get(address).status_code for address in addresses] == [200, 200]
    assert len(rows(search(browser))) == 5


def test_each_event_leads_to_its_page(admin_client: Client, trail: ClientApp) -> None:
    page = search(admin_client)
    targets = {row["kind"]: row["time (UTC)"] for row in rows(page)}
    token, event = SessionToken.unscoped.get(), SecurityEvent.unscoped.get()
    for kind in (ISSUED, SIGNED_ON):
        assert f"/admin/ags_sessions/sessiontoken/{token.pk}/change/" in targets[kind]
    assert f"/admin/ags_sessions/securityevent/{event.pk}/change/" in targets[REUSED]
    for kind, label in (("refused", REFUSED), ("sign_on_ended", ENDED)):
        assert f"{LIST}{Event.unscoped.get(kind=kind).pk}/change/" in targets[label]


def test_events_are_not_linked_to_pages_that_the_user_may_not_see(trail: ClientApp) -> None:
    user = User.objects.create_user("other", is_staff=True)
    Assignment(tenant_id="nagra", user=user).save()
    add_permissions("other", "view_event", "view_tenant")
    browser = Client()
    browser.force_login(user)
    linked = {row["kind"] for row in rows(search(browser)) if "<a " in row["time (UTC)"]}
    assert linked == {REFUSED, ENDED}
    ended = Event.unscoped.get(kind="sign_on_ended")
    text = browser.get(f"{LIST}{ended.pk}/change/").content.decode()
    assert "account-1" in text
    assert trail.tokens["client_id"] in text
    for model in ("account", "device", "sessiontoken"):
        assert f"/admin/ags_sessions/{model}/" not in text
        assert browser.get(LIST, {model: 1}).status_code == 404


def test_the_page_of_an_event_shows_all_fields(admin_client: Client, trail: ClientApp) -> None:
    account, device, token = Account.unscoped.get(), Device.unscoped.get(), SessionToken.unscoped.get()
    event = add_event(
        kind="staff_action",
        service="Customer Auth Service",
        kid="nagra-key-1",
        correlation_id="call-5",
        client_address="2001:db8::7",
        account_id="account-1",
        client_id=device.client_id,
        actor="anna",
        reason="revoke",
        details={"model": "sessiontoken", "object": str(token.pk), "text": "<script>alert(1)</script>"},
    )
    text = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    for value in (
        f"{event.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Action of staff",
        "Customer Auth Service",
        "nagra-key-1",
        "call-5",
        "2001:db8::7",
        "anna",
        "revoke",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        f'/admin/ags_sessions/account/{account.pk}/change/">account-1</a>',
        f'/admin/ags_sessions/device/{device.pk}/change/">{device.client_id}</a>',
        f'/admin/ags_sessions/sessiontoken/{token.pk}/change/">Session token {token.pk}</a>',
        f'{LIST}?event={event.pk}">All events with this correlation ID</a>',
    ):
        assert value in text, value
    SessionToken.unscoped.all().delete()
    text = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    assert f"Session token {token.pk}" in text
    assert "/admin/ags_sessions/sessiontoken/" + str(token.pk) not in text


def test_a_link_leads_to_no_row_of_another_tenant(
    admin_client: Client, trail: ClientApp, sunrise: HeadEnd
) -> None:
    account, device, token = Account.unscoped.get(), Device.unscoped.get(), SessionToken.unscoped.get()
    details = {"model": "sessiontoken", "object": str(token.pk)}
    links = {f"/admin/ags_sessions/{row._meta.model_name}/{row.pk}/" for row in (account, device, token)}
    for tenant_id in ("nagra", "sunrise", None):
        event = add_event(tenant_id, account_id="account-1", client_id=device.client_id, details=details)
        text = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
        assert "account-1" in text
        assert {link for link in links if link in text} == (links if tenant_id == "nagra" else set())


def test_before_and_after_are_a_table(admin_client: Client, nagra: HeadEnd) -> None:
    before = {"name": "Nagra", "device_limit": None, "enabled": True, "issuer": "ags"}
    after = {
        "name": "<b>Nova</b>",
        "device_limit": 3,
        "enabled": True,
        "allowed_origins": ["https://tv.example"],
    }
    event = add_event(
        kind="configuration_changed", details={"model": "tenant", "before": before, "after": after}
    )
    text = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
    cells = [part.partition("<")[0] for part in text.split('dark:border-base-800">')[1:]]
    assert "enabled" not in cells, "it is the same"
    for row in (
        ("name", "Nagra", "&lt;b&gt;Nova&lt;/b&gt;"),
        ("device_limit", "—", "3"),
        ("issuer", "ags", "—"),
        ("allowed_origins", "—", "[&quot;https://tv.example&quot;]"),
    ):
        assert all(f">{value}</td>" in text for value in row), row
    assert "&quot;model&quot;: &quot;tenant&quot;" in text
    for details in ({"before": None, "after": {"name": "Nova"}}, {"before": {"name": "Nova"}, "after": None}):
        event = add_event(kind="configuration_changed", details=details)
        text = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()
        assert ">Nova</td>" in text
        assert ">—</td>" in text


@pytest.mark.parametrize(
    "details", [{}, {"before": 1, "after": [2]}, {"number": 7}, {"x": {"y": ["z" * 30_000]}}]
)
def test_any_details_can_be_shown(admin_client: Client, nagra: HeadEnd, details: dict[str, Any]) -> None:
    event = add_event(kind="omitted", details=details)
    page = admin_client.get(f"{LIST}{event.pk}/change/")
    assert page.status_code == 200
    assert len(page.content) < 75_000


def test_events_are_read_only(admin_client: Client, trail: ClientApp) -> None:
    event = Event.unscoped.filter(kind="refused").get()
    before = list(Event.unscoped.values())
    assert admin_client.post(LIST + "add/", {"kind": "refused"}).status_code == 403
    for act in ("change", "delete"):
        answer = admin_client.post(f"{LIST}{event.pk}/{act}/", {"post": "yes", "reason": "other"})
        assert answer.status_code == 403
    assert (
        admin_client.post(LIST, {"action": "delete_selected", "_selected_action": event.pk}).status_code
        == 200
    )
    assert admin_client.get(f"{LIST}{event.pk}/history/").status_code == 404
    assert list(Event.unscoped.values()) == before


def follow(browser: Client, page: str, text: str = "All events with this correlation ID") -> Any:
    """Follow the links of a page to the audit trail with this text; return the last result."""
    parts = browser.get(page).content.decode().split(f'">{text}</a>')[:-1]
    assert parts, "the page has no link"
    return browser.get(parts[-1].rpartition('href="')[2])


def test_pages_of_subscribers_lead_to_their_events(admin_client: Client, trail: ClientApp) -> None:
    assert ClientApp(trail.head_end).sign_on("account-2").status_code == 201
    SessionToken.unscoped.filter(account_id="account-1").update(redemption_correlation_id="call-4")
    account = Account.unscoped.get(account_id="account-1")
    device, token = account.devices.get(), SessionToken.unscoped.get(account_id="account-1")
    links = {
        f"account/{account.pk}": ("Events of this account", [ENDED, REUSED, SIGNED_ON, ISSUED]),
        f"device/{device.pk}": ("Events of this device", [ENDED, SIGNED_ON]),
        f"sessiontoken/{token.pk}": ("All events with this correlation ID", [SIGNED_ON]),
    }
    for page, (text, expected) in links.items():
        result = follow(admin_client, f"/admin/ags_sessions/{page}/change/", text)
        assert kinds(result) == expected
        assert "account-1" not in result.request["QUERY_STRING"]
        assert device.client_id not in result.request["QUERY_STRING"]
    assert kinds(admin_client.get(LIST, {"sessiontoken": token.pk})) == [ISSUED]
    event = SecurityEvent.unscoped.get()
    of_event = follow(admin_client, f"/admin/ags_sessions/securityevent/{event.pk}/change/")
    assert kinds(of_event) == [REUSED]
    for address in (f"account/{account.pk}", f"device/{device.pk}"):
        model, pk = address.split("/")
        assert person("support", "nagra").get(LIST, {model: pk}).status_code == 200
        User.objects.all().delete()
        assert person("support").get(LIST, {model: pk}).status_code == 404
        User.objects.all().delete()


def test_the_page_of_a_session_token_shows_both_requests(admin_client: Client, trail: ClientApp) -> None:
    token = SessionToken.unscoped.get()
    SessionToken.unscoped.update(
        client_address="198.51.100.1", redemption_address="198.51.100.2", kid="sent-kid"
    )
    device = Device.unscoped.get()
    address = f"/admin/ags_sessions/sessiontoken/{token.pk}/change/"
    text = admin_client.get(address).content.decode()
    for value in (
        "sent-kid",
        "198.51.100.1",
        "call-1",
        "198.51.100.2",
        str(token.redemption_correlation_id),
        f'/admin/ags_sessions/device/{device.pk}/change/">{device.client_id}</a>',
    ):
        assert value in text
    Device.unscoped.all().delete()
    text = admin_client.get(address).content.decode()
    assert device.client_id in text
    assert "/admin/ags_sessions/device/" + str(device.pk) not in text
    SessionToken.unscoped.update(kid=None, client_address=None, redeemed_at=None, client_id=None)
    SessionToken.unscoped.update(redemption_address=None, redemption_correlation_id=None)
    assert admin_client.get(address).status_code == 200, "a row of an earlier release"


def test_no_event_shows_a_secret(admin_client: Client, trail: ClientApp) -> None:
    platform = create_platform("nagra")
    assert trail.sign_on().status_code == 201
    assert platform.revoke(trail.tokens["access_token"]).status_code == 200
    redeemed = trail.session_token()
    assert [trail.redeem(redeemed).status_code for _ in range(2)] == [201, 401]
    markers = [redeemed, platform.secret, trail.tokens["access_token"], trail.tokens["refresh_token"]]
    markers += [token.rpartition(".")[2] for token in markers[2:]]
    markers += [bytes(token.token_hash).hex() for token in SessionToken.unscoped.all()]
    answers = [search(admin_client)]
    answers += [admin_client.get(f"{LIST}{event.pk}/change/") for event in Event.unscoped.all()]
    assert len(kinds(answers[0])) == 12
    for answer in answers:
        assert answer.status_code == 200
        for marker in markers:
            assert marker not in answer.content.decode()
