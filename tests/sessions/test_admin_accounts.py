"""Admin pages of subscriber accounts."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person

LIST = "/admin/ags_sessions/account/"


@pytest.fixture
def account(app: ClientApp) -> Account:
    """account-1 of nagra, signed on with one device."""
    assert app.sign_on().status_code == 201
    return Account.objects.for_tenant("nagra").get()


def page_of(account: Account, act: str = "change") -> str:
    return f"{LIST}{account.pk}/{act}/"


def text(response: Any) -> str:
    return response.content.decode()


def status(account: Account) -> str:
    return Account.objects.for_tenant(account.tenant_id).get(pk=account.pk).status


@pytest.mark.parametrize(
    ("criteria", "rows"),
    [
        ({"tenant": "nagra", "account_id": "account-1"}, 1),
        ({"tenant": "nagra", "account_id": "account"}, 0),
        ({"tenant": "nagra", "account_id": "account-1 "}, 1),
        ({"tenant": "sunrise", "account_id": "account-1"}, 0),
    ],
)
def test_a_search_needs_the_tenant_and_the_complete_account_id(
    admin_client: Client, account: Account, sunrise: HeadEnd, criteria: dict[str, str], rows: int
) -> None:
    page = admin_client.post(LIST, criteria, follow=True)
    assert len(page.context["table"]["rows"]) == rows
    assert (page_of(account) in text(page)) == bool(rows)
    assert ("No account matches." in text(page)) != bool(rows)


@pytest.mark.parametrize("criteria", [{"tenant": "nagra"}, {"account_id": "account-1"}, {"tenant": "nobody"}])
def test_an_invalid_search_shows_errors(
    admin_client: Client, account: Account, criteria: dict[str, str]
) -> None:
    page = admin_client.post(LIST, criteria)
    assert page.context["form"].errors
    assert "table" not in page.context


def test_nothing_is_shown_before_a_search(admin_client: Client, account: Account) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get(LIST, {"tenant": "nagra", "account_id": "account-1"})
    assert page_of(account) not in text(page)
    assert not [q for q in queries if 'FROM "ags_sessions_account"' in q["sql"]]


def test_an_account_can_be_added_before_its_first_sign_on(admin_client: Client, app: ClientApp) -> None:
    response = admin_client.post(
        LIST + "add/", {"tenant": "nagra", "account_id": " new \u00e4 "}, follow=True
    )
    account = Account.objects.for_tenant("nagra").get()
    assert response.redirect_chain == [(page_of(account), 302)]
    assert "The account was added." in text(response)
    assert (account.account_id, account.status) == ("new \u00e4", "active")
    assert app.sign_on("new \u00e4").status_code == 201
    assert Account.objects.for_tenant("nagra").count() == 1


@pytest.mark.parametrize("account_id", ["", "account-1", "a" * 256, "a\x00b", "a\x85b", "a\nb"])
def test_an_invalid_or_existing_account_id_is_rejected(
    admin_client: Client, account: Account, account_id: str
) -> None:
    page = admin_client.post(LIST + "add/", {"tenant": "nagra", "account_id": account_id})
    assert page.status_code in {200, 400}
    assert Account.objects.for_tenant("nagra").count() == 1
    if page.status_code == 200:
        assert page.context["adminform"].form.errors


def test_a_suspended_account_is_rejected_until_it_is_reactivated(
    admin_client: Client, app: ClientApp, account: Account
) -> None:
    confirmation = text(admin_client.get(page_of(account, "suspend")))
    assert "Suspend account account-1 of nagra?" in confirmation
    assert "its devices cannot refresh" in confirmation
    assert app.refresh().status_code == 200

    html = text(admin_client.post(page_of(account, "suspend"), follow=True))
    assert "The account is suspended." in html
    assert page_of(account, "reactivate") in html
    assert page_of(account, "suspend") not in html
    assert app.refresh().json()["code"] == 20002
    assert app.sign_on().json()["code"] == 20002

    admin_client.post(page_of(account, "reactivate"))
    assert app.refresh().status_code == 200


def test_a_cancelled_account_is_rejected_permanently(
    admin_client: Client, app: ClientApp, account: Account
) -> None:
    assert "This cannot be undone" in text(admin_client.get(page_of(account, "cancel")))
    html = text(admin_client.post(page_of(account, "cancel"), follow=True))
    assert "The account is cancelled." in html
    assert app.refresh().json()["code"] == 20001
    for act in ("reactivate", "suspend", "cancel"):
        assert page_of(account, act) not in html
        assert "It has been changed in the meantime" in text(
            admin_client.post(page_of(account, act), follow=True)
        )
        assert status(account) == "cancelled"


def test_revoke_all_revokes_everything_and_the_account_can_sign_on_again(
    admin_client: Client, nagra: HeadEnd, app: ClientApp, account: Account
) -> None:
    waiting = nagra.present(nagra.token()).json()["sessionToken"]
    other = ClientApp(nagra)
    assert other.sign_on("account-2").status_code == 201
    confirmation = text(admin_client.get(page_of(account, "revoke-all")))
    assert "Live session tokens: 1." in confirmation
    assert "Live sign-ons: 1." in confirmation

    html = text(admin_client.post(page_of(account, "revoke-all"), follow=True))
    assert "Everything issued to the account is revoked." in html
    assert app.refresh().status_code == 401
    assert app.redeem(waiting).status_code == 401
    assert other.refresh().status_code == 200, "another account of the same tenant"
    assert app.sign_on(clientId=app.tokens["client_id"]).status_code == 201
    assert "Live sign-ons: 1." in text(admin_client.get(page_of(account, "revoke-all")))


def test_the_newest_devices_of_an_account_are_shown(admin_client: Client, account: Account) -> None:
    (device,) = Device.objects.for_tenant("nagra")
    Device.unscoped.bulk_create(
        Device(
            **{
                **{field.attname: getattr(device, field.attname) for field in Device._meta.fields},
                "id": None,
                "client_id": f"old-{number}",
                "sign_on": f"old-{number}",
                "created_at": "2001-01-01T00:00:00Z",
            }
        )
        for number in range(300)
    )
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get(page_of(account))
    rows = page.context["table"]["rows"]
    assert len(rows) == 100
    assert device.client_id in rows[0][0]
    assert "The newest 100 are shown." in text(page)
    (query,) = [q["sql"] for q in queries if 'FROM "ags_sessions_device"' in q["sql"]]
    assert "LIMIT 101" in query


def test_actions_are_logged_with_the_user_and_without_the_account_id(
    admin_client: Client, account: Account
) -> None:
    admin_client.post(page_of(account, "suspend"))
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("admin", str(account.pk))
    assert "account-1" not in entry.change_message
    history = text(admin_client.get(page_of(account, "history")))
    assert "The account is suspended." in history
    assert "admin" in history


# The response to each action by group

ACTS = ("suspend", "reactivate", "revoke-all", "cancel")
EXPECTED = {
    "operator staff": (302, 302, 302, 302),
    "support": (302, 302, 302, 403),
    "auditor": (403, 403, 403, 403),
}


@pytest.mark.parametrize("group", EXPECTED)
def test_only_operator_staff_can_cancel_and_add_accounts(account: Account, group: str) -> None:
    browser = person(group, "nagra")
    page = text(browser.get(page_of(account)))
    for act, answer in zip(ACTS, EXPECTED[group], strict=True):
        if act != "reactivate":
            assert (page_of(account, act) in page) == (answer == 302)
        for method in (browser.get, browser.post):
            assert method(page_of(account, act)).status_code == (
                200 if answer == 302 and method == browser.get else answer
            )
    added = browser.post(LIST + "add/", {"tenant": "nagra", "account_id": "new"})
    assert added.status_code == (302 if group == "operator staff" else 403)
    assert ("/account/add/" in text(browser.get(LIST))) == (group == "operator staff")


def test_staff_cannot_add_an_account_to_another_tenant(account: Account, sunrise: HeadEnd) -> None:
    browser = person("operator staff", "nagra")
    page = browser.post(LIST + "add/", {"tenant": "sunrise", "account_id": "new"})
    assert page.context["adminform"].form.errors["tenant"]
    assert not Account.objects.for_tenant("sunrise").exists()


def test_accounts_cannot_be_edited_or_removed(admin_client: Client, account: Account) -> None:
    before = Account.unscoped.values().get()
    for method in (admin_client.get, admin_client.post):
        assert method(page_of(account, "delete")).status_code == 403
    assert admin_client.post(page_of(account), {"account_id": "other", "status": "x"}).status_code == 403
    assert Account.unscoped.values().get() == before
