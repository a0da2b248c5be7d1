"""`manage.py export_account` and `manage.py erase_account`."""

from __future__ import annotations

import io
import json
import uuid
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from ags.operations.account_erasure import erase_account
from ags.operations.purge import BATCH_SIZE
from ags.sessions.models import Account, AccountChoice, Device, Event, SecurityEvent, SessionToken
from tenants.models import Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import add_trial_service, create_platform
from tests.support.purge import add_session_tokens

ACCOUNT = "Kühn 4711"
OTHERS = ("Kühn 4711-1", "Kühn 47110", "old-Kühn 4711")
ADDRESS, DEVICE_NAME = "192.0.2.77", "marker-of-a-device"


def run(command: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def export(account: str = ACCOUNT, tenant_id: str = "nagra") -> Any:
    return json.loads(run("export_account", tenant_id, account))


class Subscriber:
    """An account with two devices and everything that AGS can store about it."""

    def __init__(self, head_end: HeadEnd, account: str, admin: Client | None = None) -> None:
        self.account, self.tenant_id = account, head_end.tenant_id
        self.app, self.other_app = ClientApp(head_end), ClientApp(head_end)
        self.proof = head_end.token(OpfAccountId=account, jti=f"jti-{uuid.uuid4()}")
        self.redeemed: str = head_end.present(self.proof).json()["sessionToken"]
        device = {"deviceInformation": {"name": DEVICE_NAME}}
        self.app.tokens = self.app.redeem(self.redeemed, **device).json()
        self.client_ids = [self.app.tokens["client_id"]]
        assert self.app.sign_on(account, clientId=self.client_ids[0]).status_code == 201
        assert self.app.redeem(self.redeemed).status_code == 401, "a security event"
        self.unredeemed = self.app.session_token(account)
        chosen = self.other_app.request_choices(f"{account},account-9")[0]
        assert self.other_app.choose_account(chosen).status_code == 201
        self.client_ids.append(self.other_app.tokens["client_id"])
        self.user_token = self.app.request_choices(f"account-9,{account}")[1]
        self._store_events()
        if admin is not None:
            self._store_log(admin)

    def _store_log(self, admin: Client) -> None:
        row = self.get_row()
        pages = [f"account/{row.pk}/suspend", f"account/{row.pk}/reactivate"]
        for device in Device.unscoped.filter(account=row):
            pages += [f"device/{device.pk}/disable", f"device/{device.pk}/enable"]
        for page in pages:
            assert admin.post(f"/admin/ags_sessions/{page}/").status_code == 302
        LogEntry.objects.filter(object_id=str(row.pk)).update(change_message=f"Suspended {self.account}.")

    def _store_events(self) -> None:
        """Store what a server and the admin store."""
        known = {"tenant_id": self.tenant_id, "client_address": ADDRESS}
        facts = {"facts": {"account": self.account, self.account: [self.account]}}
        for client_id in self.client_ids:
            Event.unscoped.create(**known, kind="refused", client_id=client_id)
        Event.unscoped.create(**known, kind="refused", account_id=self.account, details=facts)
        Event.unscoped.create(
            tenant_id=self.tenant_id,
            kind="configuration_changed",
            actor="staff",
            details={"before": {"name": f"For {self.account}."}, "after": {"names": [self.account]}},
        )

    def get_row(self) -> Account:
        return Account.objects.for_tenant(self.tenant_id).get(account_id=self.account)


@pytest.fixture
def subscriber(nagra: HeadEnd, trial: Service, admin_client: Client) -> Subscriber:
    return Subscriber(nagra, ACCOUNT, admin_client)


def dump(tenant_id: str | None = None, *, without: str | None = None) -> list[str]:
    """Return all rows of all tables as text, or those of one tenant, or all but those of one tenant."""
    rows = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description or ()]
            for row in cursor.fetchall():
                values = dict(zip(names, row, strict=True))
                its_tenant = values.get("tenant_id")
                if (tenant_id is None or its_tenant == tenant_id) and (
                    without is None or its_tenant != without
                ):
                    rows.append(f"{table}: {values}")
    return rows


def find_rows(text: str, rows: list[str]) -> list[str]:
    escaped = json.dumps(text)[1:-1].replace("\\", "\\\\")  # SQLite: JSON in the repr of a text
    return [row for row in rows if text in row or escaped in row]


# export_account


def test_the_export_has_all_that_is_stored(subscriber: Subscriber, nagra: HeadEnd) -> None:
    document = export()
    assert (document["tenant"], document["account_id"]) == ("nagra", ACCOUNT)
    assert document["account"]["status"] == "active"
    assert [device["client_id"] for device in document["devices"]] == subscriber.client_ids
    assert document["devices"][0]["information"] == {"name": DEVICE_NAME}
    assert document["devices"][0]["signed_on_at"].endswith("Z")
    assert [bool(token["redeemed_at"]) for token in document["session_tokens"]] == [True, True, False]
    assert len(document["account_choices"]) == 2
    assert sorted(event["kind"] for event in document["events"]) == [
        *["refused"] * 3,
        *["session_token_issued"] * 3,
        "session_token_reused",
        *["signed_on"] * 3,
        *["staff_action"] * 6,
    ]
    assert [entry["page"] for entry in document["staff_log"]] == ["account"] * 2 + ["device"] * 4


def test_the_export_has_no_hash_and_no_token(subscriber: Subscriber) -> None:
    text = json.dumps(export())
    app = subscriber.app.tokens
    secrets = [subscriber.proof, subscriber.redeemed, subscriber.unredeemed, subscriber.user_token]
    secrets += [app["access_token"], app["refresh_token"]]
    for model in (SessionToken, AccountChoice):
        secrets += [bytes(row.token_hash).hex() for row in model.unscoped.all()]
    for secret in secrets:
        assert secret not in text
        assert secret.rpartition(".")[2] not in text or secret == subscriber.user_token


def test_the_export_has_nothing_of_other_accounts(
    subscriber: Subscriber, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    before = export()
    add_trial_service("sunrise")
    Subscriber(sunrise, ACCOUNT)
    for account in OTHERS:
        Subscriber(nagra, account)
    assert export() == before
    assert {event["tenant"] for event in export(tenant_id="sunrise")["events"]} == {"sunrise"}


def test_an_account_that_has_never_signed_on_is_exported(nagra: HeadEnd) -> None:
    nagra.present(nagra.token(OpfAccountId=ACCOUNT))
    document = export()
    assert document["account"] is None
    assert len(document["session_tokens"]) == len(document["events"]) == 1


def test_nothing_about_an_account_is_an_error(subscriber: Subscriber, sunrise: HeadEnd) -> None:
    with pytest.raises(CommandError, match=r"^AGS stores nothing about account Kühn of tenant nagra\.$"):
        export("Kühn")
    with pytest.raises(CommandError, match="nothing"):
        export(tenant_id="sunrise")


@pytest.mark.parametrize("command", ["export_account", "erase_account"])
def test_an_unknown_tenant_is_an_error(nagra: HeadEnd, command: str) -> None:
    with pytest.raises(CommandError, match=r"^Tenant nobody does not exist\.$"):
        run(command, "nobody", ACCOUNT)
    with pytest.raises(CommandError, match="required: account_id"):
        run(command, "nagra")


# erase_account


def test_an_erased_account_is_nowhere_in_the_database(
    subscriber: Subscriber, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    add_trial_service("sunrise")
    Subscriber(sunrise, ACCOUNT)
    personal = [ACCOUNT, ADDRESS, DEVICE_NAME, *subscriber.client_ids]
    theirs = dump("sunrise")
    before = dump(without="sunrise")
    assert all(find_rows(text, before) for text in personal)

    assert run("erase_account", "nagra", ACCOUNT, "--yes") == (
        "11 events, 3 session tokens, 2 account choices, 2 devices, 1 security events, 1 accounts erased\n"
    )
    after = dump(without="sunrise")
    assert [row for text in personal for row in find_rows(text, after)] == []
    assert dump("sunrise") == theirs


def test_other_accounts_are_not_changed(subscriber: Subscriber, nagra: HeadEnd) -> None:
    others = [Subscriber(nagra, account) for account in OTHERS]
    before = [export(account) for account in OTHERS]
    changes = Event.unscoped.filter(kind="configuration_changed", actor="staff").order_by("pk")
    configured = list(changes.values())
    run("erase_account", "nagra", ACCOUNT, "--yes")
    assert [export(account) for account in OTHERS] == before
    after = list(changes.values())
    assert after[1:] == configured[1:]
    assert after[0]["details"] == {"before": {"name": "For [erased]."}, "after": {"names": ["[erased]"]}}
    assert others[0].app.refresh().status_code == 200


def test_events_stay_without_the_person(subscriber: Subscriber) -> None:
    kinds = sorted(Event.unscoped.values_list("kind", flat=True))
    run("erase_account", "nagra", ACCOUNT, "--yes")
    erasure = Event.unscoped.get(reason="account_erased")
    assert (erasure.tenant_id, erasure.kind, erasure.actor) == ("nagra", "staff_action", "a command")
    assert (erasure.account_id, erasure.client_id, erasure.details) == ("", "", {})
    assert sorted([*kinds, "staff_action"]) == sorted(Event.unscoped.values_list("kind", flat=True))
    assert not Event.unscoped.exclude(client_address=None).exists()
    assert (
        SessionToken.unscoped.filter(account_id="", client_address=None, redemption_address=None).count() == 3
    )
    assert SecurityEvent.unscoped.get().account_id == ""
    assert {entry.object_repr for entry in LogEntry.objects.all()} == {"[erased]"}
    assert "Suspended [erased]." in {entry.change_message for entry in LogEntry.objects.all()}


def test_nothing_of_an_erased_account_is_valid(subscriber: Subscriber, nagra: HeadEnd) -> None:
    platform = create_platform("nagra")
    access_token = subscriber.app.tokens["access_token"]
    assert platform.is_active(access_token)
    run("erase_account", "nagra", ACCOUNT, "--yes")
    assert not platform.is_active(access_token)
    assert subscriber.app.refresh().status_code == 401
    for token in (subscriber.redeemed, subscriber.unredeemed):
        assert subscriber.app.redeem(token).status_code == 401
    assert subscriber.app.choose_account(subscriber.user_token).status_code == 401
    replayed = nagra.present(subscriber.proof)
    assert (replayed.status_code, replayed.json()["reason"]) == (401, "replayed")
    assert not Account.unscoped.filter(account_id__in=["", ACCOUNT]).exists()


def test_a_later_sign_on_creates_a_new_account(subscriber: Subscriber) -> None:
    run("erase_account", "nagra", ACCOUNT, "--yes")
    assert subscriber.app.sign_on(ACCOUNT).status_code == 201
    document = export()
    assert (len(document["devices"]), len(document["session_tokens"])) == (1, 1)


def test_an_active_account_is_erased_only_with_yes(subscriber: Subscriber) -> None:
    before = dump()
    with pytest.raises(CommandError, match=r"^The account is active, .* Cancel it first, or add --yes\.$"):
        run("erase_account", "nagra", ACCOUNT)
    assert dump() == before
    Account.unscoped.update(status="cancelled")
    assert "1 accounts erased" in run("erase_account", "nagra", ACCOUNT)


def test_an_account_that_has_never_signed_on_is_erased(nagra: HeadEnd) -> None:
    nagra.present(nagra.token(OpfAccountId=ACCOUNT))
    assert "1 session tokens" in run("erase_account", "nagra", ACCOUNT)
    assert find_rows(ACCOUNT, dump()) == []
    assert Event.unscoped.filter(reason="account_erased").count() == 1


def test_erasing_twice_changes_nothing(subscriber: Subscriber) -> None:
    run("erase_account", "nagra", ACCOUNT, "--yes")
    before = dump()
    assert run("erase_account", "nagra", ACCOUNT) == "Nothing is stored about this account.\n"
    assert dump() == before


def test_an_empty_account_id_is_an_error(subscriber: Subscriber) -> None:
    """Rows of erased accounts have it."""
    with pytest.raises(CommandError, match=r"^The account ID is empty\.$"):
        run("erase_account", "nagra", "", "--yes")
    with pytest.raises(CommandError, match=r"^The account ID is empty\.$"):
        run("export_account", "nagra", "")


def test_an_interrupted_erasure_is_resumed(nagra: HeadEnd) -> None:
    number = 2 * BATCH_SIZE + 1
    add_session_tokens(nagra, number, 0)
    for _ in range(number):
        Event.unscoped.create(tenant_id="nagra", kind="refused", account_id="x")
    assert next(erase_account("nagra", "x")) == ("session tokens", BATCH_SIZE)
    assert SessionToken.unscoped.filter(account_id="x").count() == number - BATCH_SIZE
    assert not Event.unscoped.filter(reason="account_erased").exists()
    assert run("erase_account", "nagra", "x").startswith(f"{BATCH_SIZE + 1} session tokens, ")
    assert not SessionToken.unscoped.filter(account_id="x").exists()
    assert not Event.unscoped.filter(account_id="x").exists()
    assert Event.unscoped.filter(reason="account_erased").count() == 1


def test_purged_devices_are_erased(subscriber: Subscriber) -> None:
    """Events and the log of staff contain their client IDs, and so do the records of their sign-ons."""
    Device.unscoped.all().delete()
    run("erase_account", "nagra", ACCOUNT, "--yes")
    assert [row for client_id in subscriber.client_ids for row in find_rows(client_id, dump())] == []


def test_a_refusal_of_another_account_on_the_device_keeps_that_account(
    subscriber: Subscriber,
) -> None:
    event = Event.unscoped.create(
        tenant_id="nagra", kind="refused", account_id="account-2", client_id=subscriber.client_ids[0]
    )
    run("erase_account", "nagra", ACCOUNT, "--yes")
    event.refresh_from_db()
    assert (event.account_id, event.client_id) == ("account-2", "")
