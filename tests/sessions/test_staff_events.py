"""Actions of staff in the audit trail: one event each, with who did it, to what, and what it changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import Client

from ags.limits.memory import LocalCounters
from ags.operations import event_receivers
from ags.operations.event_receivers import MAX_FAILED_LOGINS
from ags.sessions.admin.search_only import SearchOnlyAdmin
from ags.sessions.models import Account, Device, Event, SessionToken
from ags.sessions.services.account_status import cancel_account
from tenants.admin.transitions import Transition
from tenants.models import Assignment
from tests.support.clients import ClientApp, HeadEnd
from tests.support.events import (
    CORRELATION_ID,
    capture_events,
    check_command,
    check_request,
    values_of,
)

LOGIN = "/admin/login/?next=/admin/"
RIGHT = "a long staff password"
WRONG = "wrong-password-marker-8271"
NEW_PASSWORD = "another long staff password"
HEADERS = {"x-correlation-id": CORRELATION_ID}

PAGES = {
    type(page).__name__: page for page in admin.site._registry.values() if isinstance(page, SearchOnlyAdmin)
}
TRANSITIONS = [
    pytest.param(page, transition, id=f"{page.opts.model_name}-{transition.name}")
    for page in PAGES.values()
    for transition in page.transitions
]


@pytest.fixture
def rows(nagra: HeadEnd) -> dict[Any, Any]:
    """An account, its device, and a session token of the account."""
    app = ClientApp(nagra)
    assert app.sign_on().status_code == 201
    assert nagra.present(nagra.token()).status_code == 200
    return {
        Account: Account.unscoped.get(),
        Device: Device.unscoped.get(),
        SessionToken: SessionToken.unscoped.get(redeemed_at=None),
    }


def page_of(row: Any, act: str) -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/{act}/"


def post(client: Client, address: str, data: dict[str, Any] | None = None) -> None:
    response = client.post(address, data or {}, headers=HEADERS)
    assert response.status_code == 302, response.content.decode()


def submit(client: Client, address: str, data: dict[str, Any] | None = None, actor: str = "admin") -> Event:
    """Submit a form that leaves exactly one event, and return it."""
    (event,) = capture_events(lambda: post(client, address, data))
    check_request(event, actor)
    return event


# Accounts, devices and session tokens


@pytest.mark.parametrize(("page", "transition"), TRANSITIONS)
def test_every_action_on_data_of_subscribers_leaves_one_event(
    admin_client: Client, rows: dict[Any, Any], page: SearchOnlyAdmin, transition: Transition
) -> None:
    row = rows[page.model]
    if transition.sources is not None and row.status not in transition.sources:
        (status,) = transition.sources
        page.model.unscoped.filter(pk=row.pk).update(status=status)
    event = submit(admin_client, page_of(row, transition.name.replace("_", "-")))
    assert (event.tenant_id, event.account_id) == ("nagra", "account-1")
    assert event.client_id == (row.client_id if isinstance(row, Device) else "")
    if transition.name == "end":
        assert (event.kind, event.reason) == (Event.Kind.SIGN_ON_ENDED, "ended_by_staff")
        return
    assert (event.kind, event.reason) == (Event.Kind.STAFF_ACTION, transition.name)
    assert (event.details["model"], event.details["object"]) == (row._meta.model_name, str(row.pk))
    before, after = values_of(event)
    assert before.keys() == after.keys()
    assert before != after
    if transition.target is not None:
        assert after == {"status": transition.target}


def test_the_values_of_an_account(admin_client: Client, rows: dict[Any, Any]) -> None:
    account = rows[Account]
    event = submit(admin_client, page_of(account, "suspend"))
    assert values_of(event) == ({"status": "active"}, {"status": "suspended"})
    event = submit(admin_client, page_of(account, "revoke-all"))
    account.refresh_from_db()
    first = account.revoked_before.isoformat()
    assert values_of(event) == ({"revoked_before": None}, {"revoked_before": first})
    event = submit(admin_client, page_of(account, "revoke-all"))
    assert values_of(event)[0] == {"revoked_before": first}
    event = submit(admin_client, page_of(account, "cancel"))
    assert values_of(event) == ({"status": "suspended"}, {"status": "cancelled"})


def test_a_refused_action_leaves_no_event(admin_client: Client, rows: dict[Any, Any]) -> None:
    account, device, token = rows.values()
    for row, act in ((account, "cancel"), (device, "delete-device"), (token, "revoke")):
        submit(admin_client, page_of(row, act))
        assert capture_events(partial(post, admin_client, page_of(row, act))) == []


def test_the_status_before_is_that_of_the_database(rows: dict[Any, Any]) -> None:
    account = rows[Account]
    Account.unscoped.update(status="suspended")
    (event,) = capture_events(lambda: cancel_account(account))
    check_command(event)
    assert values_of(event) == ({"status": "suspended"}, {"status": "cancelled"})


def test_an_added_account(admin_client: Client, nagra: HeadEnd) -> None:
    event = submit(
        admin_client, "/admin/ags_sessions/account/add/", {"tenant": "nagra", "account_id": "account-7"}
    )
    assert (event.tenant_id, event.account_id, event.reason) == ("nagra", "account-7", "add")
    assert event.details == {
        "model": "account",
        "object": str(Account.unscoped.get().pk),
        "before": None,
        "after": {"status": "active"},
    }, "the account ID is in its column only"


@pytest.mark.parametrize(("page", "transition"), TRANSITIONS)
def test_an_action_is_rolled_back_if_its_event_cannot_be_stored(
    admin_client: Client, rows: dict[Any, Any], page: SearchOnlyAdmin, transition: Transition
) -> None:
    row = rows[page.model]
    if transition.sources is not None and row.status not in transition.sources:
        (status,) = transition.sources
        page.model.unscoped.filter(pk=row.pk).update(status=status)
    before = page.model.unscoped.values().get(pk=row.pk)
    admin_client.raise_request_exception = False
    address = page_of(row, transition.name.replace("_", "-"))
    with connection.execute_wrapper(refuse_events):
        assert admin_client.post(address).status_code >= 500
    assert page.model.unscoped.values().get(pk=row.pk) == before


def refuse_events(execute: Any, sql: str, *args: Any) -> Any:
    if "INSERT INTO" in sql and "ags_sessions_event" in sql:
        raise DatabaseError
    return execute(sql, *args)


# Logins


def log_in(client: Client, password: str, username: str = "staff") -> int:
    data = {"username": username, "password": password}
    status: int = client.post(LOGIN, data, headers=HEADERS).status_code
    return status


def test_login_and_logout(client: Client, staff: User) -> None:
    (event,) = capture_events(lambda: log_in(client, RIGHT))
    check_request(event, "staff")
    assert (event.kind, event.reason, event.tenant_id) == (Event.Kind.STAFF_ACTION, "login", None)
    assert event.details == {"model": "user", "object": "staff"}
    (event,) = capture_events(lambda: client.post("/admin/logout/", headers=HEADERS))
    check_request(event, "staff")
    assert (event.reason, event.details) == ("logout", {"model": "user", "object": "staff"})


@pytest.fixture
def no_failed_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not stored any failed login yet."""
    monkeypatch.setattr(event_receivers, "_failed_logins", LocalCounters(60))


@pytest.mark.usefixtures("no_failed_logins")
@pytest.mark.parametrize(("username", "stored"), [("staff", "staff"), (RIGHT, "")])
def test_a_failed_login_contains_only_existing_usernames(
    client: Client, staff: User, username: str, stored: str
) -> None:
    (event,) = capture_events(lambda: log_in(client, WRONG, username))
    check_request(event, "")
    assert (event.reason, event.details) == ("login_failed", {"model": "user", "object": stored})
    for text in (WRONG, RIGHT):
        assert text not in str(Event.unscoped.values())


@pytest.mark.usefixtures("no_failed_logins")
def test_a_flood_of_failed_logins_leaves_a_bounded_number_of_events(staff: User) -> None:
    def guess() -> None:
        for number in range(MAX_FAILED_LOGINS + 5):
            log_in(Client(REMOTE_ADDR=f"198.51.100.{number}"), WRONG)

    assert len(capture_events(guess)) == MAX_FAILED_LOGINS
    (event,) = capture_events(lambda: log_in(Client(), RIGHT))
    assert event.reason == "login"


def test_a_login_that_replaces_an_outdated_hash_leaves_only_its_event(client: Client, staff: User) -> None:
    outdated = make_password(RIGHT, salt="short")
    User.objects.filter(pk=staff.pk).update(password=outdated)
    (event,) = capture_events(lambda: log_in(client, RIGHT))
    assert event.reason == "login"
    assert User.objects.get(pk=staff.pk).password != outdated


# Users and groups


def test_an_added_user_and_the_changes_of_their_permissions(admin_client: Client) -> None:
    data = {"username": "somebody", "usable_password": "true"}
    added = submit(
        admin_client, "/admin/auth/user/add/", data | {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    )
    assert (added.kind, added.reason, added.tenant_id) == (Event.Kind.STAFF_ACTION, "add", None)
    assert (added.details["model"], added.details["object"]) == ("user", "somebody")
    before, after = values_of(added)
    assert before is None
    assert (after["username"], after["is_superuser"], after["password"]) == ("somebody", False, "set")

    user = User.objects.get(username="somebody")
    form = {"username": "somebody", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    changed = submit(admin_client, page_of(user, "change"), form)
    assert values_of(changed) == (
        {"is_staff": False, "is_superuser": False},
        {"is_staff": True, "is_superuser": True},
    )
    support, auditor = (Group.objects.get(name=name) for name in ("support", "auditor"))
    changed = submit(admin_client, page_of(user, "change"), form | {"groups": [support.pk, auditor.pk]})
    assert changed.reason == "change_groups"
    assert values_of(changed) == ({"groups": []}, {"groups": ["auditor", "support"]})
    changed = submit(admin_client, page_of(user, "change"), form | {"groups": [auditor.pk]})
    assert values_of(changed) == ({"groups": ["auditor", "support"]}, {"groups": ["auditor"]})
    unchanged = form | {"groups": [auditor.pk]}
    assert capture_events(lambda: post(admin_client, page_of(user, "change"), unchanged)) == []
    assert NEW_PASSWORD not in str(Event.unscoped.values())


def test_a_password_that_staff_set_for_another_user(admin_client: Client, staff: User) -> None:
    address = f"/admin/auth/user/{staff.pk}/password/"
    data = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    event = submit(admin_client, address, data)
    assert (event.reason, event.details["object"]) == ("change", "staff")
    assert values_of(event) == ({"password": "set"}, {"password": "changed"})
    disabled = {"usable_password": "false", "unset-password": "x"}
    assert values_of(submit(admin_client, address, disabled)) == ({"password": "set"}, {"password": None})


def test_their_own_password(client: Client, staff: User) -> None:
    client.force_login(staff)
    data = {"old_password": RIGHT, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    event = submit(client, "/admin/password_change/", data, actor="staff")
    assert (event.reason, event.details["object"]) == ("change", "staff")
    assert values_of(event) == ({"password": "set"}, {"password": "changed"})


def test_a_group_and_its_permissions(admin_client: Client) -> None:
    view, change = (Permission.objects.get(codename=name) for name in ("view_device", "change_device"))
    added = submit(admin_client, "/admin/auth/group/add/", {"name": "desk", "permissions": [view.pk]})
    assert (added.details["model"], added.details["object"], added.reason) == ("group", "desk", "add")
    assert values_of(added) == (None, {"name": "desk", "permissions": ["view_device"]})
    address = page_of(Group.objects.get(name="desk"), "change")
    changed = submit(admin_client, address, {"name": "desk", "permissions": [view.pk, change.pk]})
    assert values_of(changed) == (
        {"permissions": ["view_device"]},
        {"permissions": ["change_device", "view_device"]},
    )


def test_an_assignment_belongs_to_its_tenant(admin_client: Client, nagra: HeadEnd, staff: User) -> None:
    data = {"tenant": "nagra", "user": staff.pk}
    added = submit(admin_client, "/admin/tenants/assignment/add/", data)
    assert (added.tenant_id, added.reason, added.kind) == ("nagra", "add", Event.Kind.STAFF_ACTION)
    assert values_of(added) == (None, {"tenant": "nagra", "user": "staff"})
    address = page_of(Assignment.unscoped.get(), "delete")
    deleted = submit(admin_client, address, {"post": "yes"})
    assert (deleted.tenant_id, deleted.reason) == ("nagra", "delete")
    assert values_of(deleted) == ({"tenant": "nagra", "user": "staff"}, None)


def create_superuser() -> None:
    call_command("createsuperuser", username="root", email="", interactive=False, stdout=io.StringIO())


def change_password() -> None:
    call_command("changepassword", "staff", stdout=io.StringIO())


@pytest.mark.parametrize(
    ("command", "reason", "after"),
    [
        (create_superuser, "add", {"is_superuser": True, "password": None}),
        (change_password, "change", {"password": "changed"}),
    ],
)
def test_a_user_that_a_command_adds_or_changes(
    staff: User,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[], None],
    reason: str,
    after: dict[str, Any],
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: NEW_PASSWORD)
    (event,) = capture_events(command)
    check_command(event)
    assert event.reason == reason
    assert {name: event.details["after"].get(name) for name in after} == after
