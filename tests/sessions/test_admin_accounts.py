"""The pages of accounts: looked up, added, suspended, cancelled, and everything revoked that one has."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device
from tests.conftest import ClientApp, HeadEnd, person

LIST = "/admin/ags_sessions/account/"


@pytest.fixture
def account(app: ClientApp) -> Account:
    """account-1 of nagra, signed on with one device."""
    assert app.sign_on().status_code == 201
    return Account.objects.for_tenant("nagra").get()


def page_of(account: Account, act: str = "change") -> str:
    return f"{LIST}{account.pk}/{act}/"


def text(response: Any) -> str:
    return response.content.decode()  # type: ignore[no-any-return]


def status(account: Account) -> str:
    return Account.objects.for_tenant(account.tenant_id).get(pk=account.pk).status


@pytest.mark.parametrize(
    ("known", "rows"),
    [
        ({"tenant": "nagra", "account_id": "account-1"}, 1),
        ({"tenant": "nagra", "account_id": "account"}, 0),
        ({"tenant": "nagra", "account_id": "account-1 "}, 1),
        ({"tenant": "sunrise", "account_id": "account-1"}, 0),
    ],
)
def test_only_tenant_and_whole_account_id_find(
    admin_client: Client, account: Account, sunrise: HeadEnd, known: dict[str, str], rows: int
) -> None:
    found = admin_client.post(LIST, known, follow=True)
    assert len(found.context["table"]["rows"]) == rows
    assert (page_of(account) in text(found)) == bool(rows)
    assert ("No account matches." in text(found)) != bool(rows)


@pytest.mark.parametrize("known", [{"tenant": "nagra"}, {"account_id": "account-1"}, {"tenant": "nobody"}])
def test_a_look_up_that_is_none_is_told(
    admin_client: Client, account: Account, known: dict[str, str]
) -> None:
    page = admin_client.post(LIST, known)
    assert page.context["form"].errors
    assert "table" not in page.context


def test_nothing_is_shown_before_something_is_looked_up(admin_client: Client, account: Account) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get(LIST, {"tenant": "nagra", "account_id": "account-1"})
    assert page_of(account) not in text(page)
    assert not [q for q in queries if 'FROM "ags_sessions_account"' in q["sql"]]


def test_an_account_is_added_before_its_first_sign_on(admin_client: Client, app: ClientApp) -> None:
    made = admin_client.post(LIST + "add/", {"tenant": "nagra", "account_id": " new \u00e4 "}, follow=True)
    account = Account.objects.for_tenant("nagra").get()
    assert made.redirect_chain == [(page_of(account), 302)]
    assert "The account is added." in text(made)
    assert (account.account_id, account.status) == ("new \u00e4", "active")
    assert app.sign_on("new \u00e4").status_code == 201
    assert Account.objects.for_tenant("nagra").count() == 1


@pytest.mark.parametrize("account_id", ["", "account-1", "a" * 256, "a\x00b", "a\x85b", "a\nb"])
def test_an_account_that_no_proof_could_name_or_that_is_there_is_refused(
    admin_client: Client, account: Account, account_id: str
) -> None:
    page = admin_client.post(LIST + "add/", {"tenant": "nagra", "account_id": account_id})
    assert page.status_code in {200, 400}
    assert Account.objects.for_tenant("nagra").count() == 1
    if page.status_code == 200:
        assert page.context["adminform"].form.errors


def test_a_suspended_account_is_refused_until_it_is_reactivated(
    admin_client: Client, app: ClientApp, account: Account
) -> None:
    question = text(admin_client.get(page_of(account, "suspend")))
    assert "Suspend account account-1 of nagra?" in question
    assert "none of its devices can refresh" in question
    assert app.refresh().status_code == 200

    told = text(admin_client.post(page_of(account, "suspend"), follow=True))
    assert "The account is suspended." in told
    assert page_of(account, "reactivate") in told
    assert page_of(account, "suspend") not in told
    assert app.refresh().json()["code"] == 20002
    assert app.sign_on().json()["code"] == 20002

    admin_client.post(page_of(account, "reactivate"))
    assert app.refresh().status_code == 200


def test_a_cancelled_account_is_refused_for_good(
    admin_client: Client, app: ClientApp, account: Account
) -> None:
    assert "This cannot be undone" in text(admin_client.get(page_of(account, "cancel")))
    told = text(admin_client.post(page_of(account, "cancel"), follow=True))
    assert "The account is cancelled." in told
    assert app.refresh().json()["code"] == 20001
    for act in ("reactivate", "suspend", "cancel"):
        assert page_of(account, act) not in told
        assert "It has changed meanwhile" in text(admin_client.post(page_of(account, act), follow=True))
        assert status(account) == "cancelled"


def test_everything_is_revoked_and_the_account_signs_on_anew(
    admin_client: Client, nagra: HeadEnd, app: ClientApp, account: Account
) -> None:
    waiting = nagra.present(nagra.token()).json()["sessionToken"]
    other = ClientApp(nagra)
    assert other.sign_on("account-2").status_code == 201
    question = text(admin_client.get(page_of(account, "revoke-all")))
    assert "Live session tokens that it gave rise to: 1." in question
    assert "Live sign-ons that it gave rise to: 1." in question

    told = text(admin_client.post(page_of(account, "revoke-all"), follow=True))
    assert "Everything that the account had is revoked." in told
    assert app.refresh().status_code == 401
    assert app.redeem(waiting).status_code == 401
    assert other.refresh().status_code == 200, "another account of the same tenant"
    assert app.sign_on(clientId=app.tokens["client_id"]).status_code == 201
    assert "Live sign-ons that it gave rise to: 1." in text(admin_client.get(page_of(account, "revoke-all")))


def test_its_newest_devices_are_shown(admin_client: Client, account: Account) -> None:
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
    assert "these are the newest 100" in text(page)
    (asked,) = [q["sql"] for q in queries if 'FROM "ags_sessions_device"' in q["sql"]]
    assert "LIMIT 101" in asked


def test_who_did_it_is_kept_and_the_account_id_is_in_no_message(
    admin_client: Client, account: Account
) -> None:
    admin_client.post(page_of(account, "suspend"))
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("admin", str(account.pk))
    assert "account-1" not in entry.change_message
    history = text(admin_client.get(page_of(account, "history")))
    assert "The account is suspended." in history
    assert "admin" in history


# What each group may do: status and outcome of each act, one after the other

ACTS = ("suspend", "reactivate", "revoke-all", "cancel")
MAY = {
    "operator staff": (302, 302, 302, 302),
    "support": (302, 302, 302, 403),
    "auditor": (403, 403, 403, 403),
}


@pytest.mark.parametrize("group", MAY)
def test_support_suspends_and_only_operator_staff_cancels_and_adds(account: Account, group: str) -> None:
    browser = person(group, "nagra")
    page = text(browser.get(page_of(account)))
    for act, answer in zip(ACTS, MAY[group], strict=True):
        if act != "reactivate":
            assert (page_of(account, act) in page) == (answer == 302)
        for method in (browser.get, browser.post):
            assert method(page_of(account, act)).status_code == (
                200 if answer == 302 and method == browser.get else answer
            )
    added = browser.post(LIST + "add/", {"tenant": "nagra", "account_id": "new"})
    assert added.status_code == (302 if group == "operator staff" else 403)
    assert ("/account/add/" in text(browser.get(LIST))) == (group == "operator staff")


def test_no_account_is_added_to_the_other_operator(account: Account, sunrise: HeadEnd) -> None:
    browser = person("operator staff", "nagra")
    page = browser.post(LIST + "add/", {"tenant": "sunrise", "account_id": "new"})
    assert page.context["adminform"].form.errors["tenant"]
    assert not Account.objects.for_tenant("sunrise").exists()


def test_nothing_of_it_is_edited_or_removed(admin_client: Client, account: Account) -> None:
    before = Account.unscoped.values().get()
    for method in (admin_client.get, admin_client.post):
        assert method(page_of(account, "delete")).status_code == 403
    assert admin_client.post(page_of(account), {"account_id": "other", "status": "x"}).status_code == 403
    assert Account.unscoped.values().get() == before
