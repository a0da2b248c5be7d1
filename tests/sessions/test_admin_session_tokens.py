"""Admin pages of session tokens."""

import base64
import logging
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from tenants.models import Assignment, Key, ResourceServer, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd, Platform

LIST = "/admin/ags_sessions/sessiontoken/"
JTI = "a-jti-that-is-not-for-staff"


@pytest.fixture
def token(nagra: HeadEnd) -> str:
    """A session token of nagra's account-1."""
    answer = nagra.present(nagra.token(jti=JTI), x_correlation_id="corr-1")
    issued: str = answer.json()["sessionToken"]
    return issued


def search(client: Client, tenant: str = "nagra", **criteria: str) -> Any:
    return client.post(LIST, {"tenant": tenant, **criteria}, follow=True)


def result_rows(response: Any) -> list[list[str]]:
    table = response.context.get("table")
    return [] if table is None else table["rows"]


def test_nothing_is_shown_before_a_search(admin_client: Client, token: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get(LIST)
    assert "account-1" not in page.content.decode()
    assert not [q for q in queries if 'FROM "ags_sessions_sessiontoken"' in q["sql"]]
    for query in ({"q": "account-1"}, {"account_id": "account-1", "tenant": "nagra"}, {"token": token}):
        assert "account-1</a>" not in admin_client.get(LIST, query).content.decode()


@pytest.mark.parametrize("name", ["account_id", "correlation_id", "token"])
def test_a_token_is_found_by_each_criterion(
    admin_client: Client, nagra: HeadEnd, token: str, name: str
) -> None:
    nagra.present(nagra.token(OpfAccountId="account-2"))
    criteria = {"account_id": "account-1", "correlation_id": "corr-1", "token": token}
    (row,) = result_rows(search(admin_client, **{name: criteria[name]}))
    assert ">account-1</a>" in row[0]
    assert (row[1], *row[4:]) == (
        "live",
        "—",
        "—",
        "Customer Auth Service",
        "nagra-key-1",
        "corr-1",
    )


def test_a_token_under_an_older_encryption_key_is_found(
    admin_client: Client, token: str, settings: Any
) -> None:
    settings.AGS_ENCRYPTION_KEYS = (b"a new encryption key, 32 bytes..", *settings.AGS_ENCRYPTION_KEYS)
    assert len(result_rows(search(admin_client, token=token))) == 1


@pytest.mark.parametrize(
    "criteria",
    [
        {"account_id": "account"},
        {"account_id": "ACCOUNT-1"},
        {"correlation_id": "corr"},
        {"token": "x" * 26},
    ],
)
def test_only_exact_values_match(admin_client: Client, token: str, criteria: dict[str, str]) -> None:
    page = search(admin_client, **criteria)
    assert result_rows(page) == []
    assert "No session token matches." in page.content.decode()


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"account_id": "account-1", "correlation_id": "corr-1"},
        {"account_id": "a" * 256},
        {"account_id": "a\x00b"},
        {"tenant": "nobody", "account_id": "account-1"},
        {"tenant": "", "account_id": "account-1"},
        {"tenant": "a\x00b", "account_id": "account-1"},
    ],
)
def test_an_invalid_search_shows_errors(admin_client: Client, token: str, criteria: dict[str, str]) -> None:
    page = search(admin_client, **{"tenant": "nagra", **criteria})
    assert page.status_code == 200
    assert page.context["form"].errors
    assert "table" not in page.context


def test_a_search_is_limited_to_its_tenant(admin_client: Client, token: str, sunrise: HeadEnd) -> None:
    for criteria in ({"account_id": "account-1"}, {"correlation_id": "corr-1"}, {"token": token}):
        assert result_rows(search(admin_client, "sunrise", **criteria)) == []


def test_the_state_depends_on_the_databases_clock(admin_client: Client, token: str) -> None:
    SessionToken.unscoped.update(expires_at="2001-01-01T00:00:00Z")
    (row,) = result_rows(search(admin_client, account_id="account-1"))
    assert row[1] == "expired"
    assert row[3] == "2001-01-01 00:00:00"


def test_a_redeemed_token_cannot_be_revoked(admin_client: Client, app: ClientApp, token: str) -> None:
    assert app.redeem(token).status_code == 201
    (row,) = result_rows(search(admin_client, account_id="account-1"))
    assert row[1] == "redeemed"
    assert row[4] != "—"
    address = f"{LIST}{SessionToken.unscoped.get().pk}/"
    assert f"{address}revoke/" not in admin_client.get(address + "change/").content.decode()


@pytest.mark.parametrize(
    ("model", "change", "state"),
    [
        (Tenant.objects, {"enabled": False}, "tenant not available"),
        (Service.unscoped, {"enabled": False}, "service not available"),
        (Key.unscoped, {"state": "revoked"}, "key not in force"),
        (Key.unscoped, {"revoked_before": "2999-01-01T00:00:00Z"}, "revoked"),
    ],
)
def test_the_state_of_a_token_is_the_reason_that_ags_returns(
    admin_client: Client, token: str, model: Any, change: dict[str, Any], state: str
) -> None:
    model.update(**change)
    (row,) = result_rows(search(admin_client, account_id="account-1"))
    assert row[1] == state


def test_only_the_newest_hundred_tokens_are_shown(admin_client: Client, nagra: HeadEnd, token: str) -> None:
    key, service = Key.unscoped.get(), Service.unscoped.get()
    SessionToken.unscoped.bulk_create(
        SessionToken(
            tenant_id="nagra",
            service=service,
            key=key,
            token_hash=str(number).encode(),
            account_id="account-1",
            correlation_id=f"old-{number}",
            created_at=f"2001-01-01T00:00:{number % 60:02}Z",
            expires_at="2001-01-01T00:00:00Z",
            dead_after="2001-01-01T00:00:00Z",
        )
        for number in range(2000)
    )
    with CaptureQueriesContext(connection) as queries:
        page = search(admin_client, account_id="account-1")
    rows = result_rows(page)
    assert len(rows) == 100
    assert rows[0][8] == "corr-1"
    assert "The newest 100 are shown." in page.content.decode()
    (query,) = [q["sql"] for q in queries if 'FROM "ags_sessions_sessiontoken"' in q["sql"]]
    assert "LIMIT 101" in query


def test_revoking_needs_a_confirmation_and_keeps_the_first_time(admin_client: Client, token: str) -> None:
    row = SessionToken.unscoped.get()
    address = f"{LIST}{row.pk}/"
    detail = admin_client.get(address + "change/").content.decode()
    assert f"{address}revoke/" in detail
    confirmation = admin_client.get(address + "revoke/").content.decode()
    assert "account account-1 of nagra" in confirmation
    assert SessionToken.unscoped.get().revoked_at is None

    html = admin_client.post(address + "revoke/", follow=True).content.decode()
    assert "The session token is revoked." in html
    revoked = SessionToken.unscoped.get()
    assert revoked.revoked_at is not None
    assert revoked.created_at <= revoked.revoked_at <= get_database_time()
    assert f"{address}revoke/" not in html
    admin_client.post(address + "revoke/")
    assert SessionToken.unscoped.get().revoked_at == revoked.revoked_at
    (row_after,) = result_rows(search(admin_client, token=token))
    assert row_after[1] == "revoked"
    entry = LogEntry.objects.first()
    assert entry is not None
    assert (entry.user.username, entry.object_id) == ("admin", str(row.pk))


def test_tokens_cannot_be_added_changed_or_deleted(admin_client: Client, token: str) -> None:
    row = SessionToken.unscoped.get()
    before = SessionToken.unscoped.values().get()
    assert admin_client.get(LIST + "add/").status_code == 403
    assert admin_client.post(LIST + "add/", {}).status_code == 403
    assert admin_client.post(f"{LIST}{row.pk}/change/", {"account_id": "other"}).status_code == 403
    assert admin_client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"{LIST}{row.pk}/history/").status_code == 404
    assert SessionToken.unscoped.values().get() == before


def test_viewing_and_revoking_need_separate_permissions(token: str) -> None:
    row = SessionToken.unscoped.get()
    for codenames, view_status, revoke_status in (
        ([], 403, 403),
        (["view_sessiontoken", "view_tenant"], 200, 403),
        (["view_sessiontoken", "change_sessiontoken", "view_tenant"], 200, 302),
    ):
        user = User.objects.create_user(f"user-{len(codenames)}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        Assignment(tenant_id="nagra", user=user).save()
        client = Client()
        client.force_login(user)
        assert client.get(LIST).status_code == view_status
        assert search(client, account_id="account-1").status_code == view_status
        assert client.get(f"{LIST}{row.pk}/change/").status_code == view_status
        assert client.post(f"{LIST}{row.pk}/revoke/").status_code == revoke_status
        assert (SessionToken.unscoped.get().revoked_at is not None) == (revoke_status == 302)


def test_no_page_shows_a_token_a_secret_or_a_jti(
    admin_client: Client, nagra: HeadEnd, app: ClientApp, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No page, log line or history entry contains a secret."""
    redeemed = app.head_end.present(nagra.token(OpfAccountId="account-2")).json()["sessionToken"]
    tokens = app.redeem(redeemed).json()
    assert app.redeem(redeemed).status_code == 401
    server = ResourceServer(tenant_id="nagra", name="Entitlements")
    secret_of_server = server.set_credentials()
    server.save()
    snapshot.invalidate("nagra")
    assert Platform(server.client_id, secret_of_server).revoke(tokens["access_token"]).status_code == 200
    caplog.set_level(logging.DEBUG)
    row = SessionToken.unscoped.get(account_id="account-1")
    key, service, signing_key = (
        Key.unscoped.get(),
        Service.unscoped.get(),
        SigningKey.unscoped.get(state="active"),
    )
    account, device, event = (
        Account.unscoped.get(),
        Device.unscoped.get(),
        Event.unscoped.get(kind="access_token_revoked"),
    )
    security_event = SecurityEvent.unscoped.get()
    markers = [token, JTI, redeemed, tokens["access_token"], tokens["refresh_token"], secret_of_server]
    markers += [part for name in ("access_token", "refresh_token") for part in tokens[name].split(".")[1:]]
    for secret in (
        bytes(row.token_hash),
        bytes(key.sealed_secret),
        nagra.secret,
        bytes(signing_key.sealed_secret),
        bytes(server.secret_hash),
    ):
        standard = base64.b64encode(secret).decode().rstrip("=")
        markers += [standard, base64.urlsafe_b64encode(secret).decode().rstrip("="), secret.hex()]
        markers.append(repr(secret)[2:-1])
    rows = {
        "tenants/tenant": ("nagra", "disable"),
        "tenants/service": (service.pk, "disable"),
        "tenants/key": (key.pk, "revoke"),
        "tenants/signingkey": (signing_key.pk, "revoke"),
        "tenants/resourceserver": (server.pk, "disable"),
        "ags_sessions/sessiontoken": (row.pk, "revoke"),
        "ags_sessions/account": (account.pk, "suspend"),
        "ags_sessions/device": (device.pk, "end"),
        "ags_sessions/securityevent": (security_event.pk, "change"),
        "ags_sessions/event": (event.pk, "change"),
    }
    visited = ["/admin/", "/admin/tenants/", "/admin/ags_sessions/", "/admin/auth/"]
    for model, (pk, act) in rows.items():
        listed = f"/admin/{model}/"
        visited += [
            listed,
            f"{listed}add/",
            *(f"{listed}{pk}/{page}/" for page in ("change", "history", "delete", act)),
        ]
    answers = [admin_client.get(address, follow=True) for address in visited]
    answers += [
        search(admin_client, **criteria)
        for criteria in (
            {"account_id": "account-1"},
            {"correlation_id": "corr-1"},
            {"token": token},
            {"token": token, "account_id": "account-1"},
            {"token": token, "tenant": "nobody"},
        )
    ]
    for page in ("account", "device"):
        criteria = {"tenant": "nagra", "account_id": "account-2"}
        answers.append(admin_client.post(f"/admin/ags_sessions/{page}/", criteria, follow=True))
        assert len(result_rows(answers[-1])) == 1
    answers.append(admin_client.post("/admin/ags_sessions/event/", {"tenant": "nagra"}, follow=True))
    kinds = {row[1] for row in result_rows(answers[-1])}
    assert kinds >= {"Session token issued", "Signed on", "Access token revoked"}
    for act in reversed(rows):
        pk, word = rows[act]
        answers.append(admin_client.post(f"/admin/{act}/{pk}/{word}/", follow=True))
    answers += [admin_client.get(f"/admin/{model}/{pk}/history/") for model, (pk, _) in rows.items()]
    assert sum(answer.status_code == 200 for answer in answers) > len(answers) / 2
    for answer in answers:
        text = answer.content.decode()
        for marker in markers:
            assert marker not in text, answer.request["PATH_INFO"]
    for record in caplog.records:
        assert not any(marker in str(vars(record)) for marker in markers)
    for entry in LogEntry.objects.all():
        assert not any(marker in str(vars(entry)) for marker in markers)
