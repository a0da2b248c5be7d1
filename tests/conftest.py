"""The cast: two operators, of which one must never see the other's, and what stands around them."""

from __future__ import annotations

import base64
import copy
import gc
import json
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.db.models.base import ModelState
from django.test import Client

from ags.sessions.services.issue import known_replays
from providers.upstream import document, http
from tenants import snapshot as tenants_snapshot
from tenants.models import Assignment, Key, ResourceServer, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests import NEEDS_POSTGRESQL, RUN_ONCE, network
from tests.upstream.process import reserved_port
from tests.waiting import PATIENCE

SERVICE = "Customer Auth Service"
TRIAL = "Trial"
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup"}

network.close()
# Who starts the tests may ignore interrupts (a shell's `&`, nohup). Children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class HeadEnd:
    """An operator's back office: knows its tenant, its key and the gate's address, and nothing else."""

    tenant_id: str
    kid: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False), repr=False)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token; a change to None leaves a claim out."""
        good = {
            "typ": "GetSessionTokenAuthN",
            "aud": "ags",
            "exp": int(time.time()) + 300,
            "OpfTenantId": self.tenant_id,
            "OpfAccountId": "account-1",
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """An OperatorAuthToken."""
        return jwt.encode(
            self.claims(**changes), self.secret, self.algorithm, {"kid": self.kid} | (headers or {})
        )

    def headers(self, **changes: str | None) -> dict[str, str]:
        """The headers of a good request; a change to None leaves a header out."""
        good = {"nv-tenant-id": self.tenant_id, "x-auth-service-id": SERVICE}
        changed = good | {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in changed.items() if value is not None}

    def post(self, body: Any, **headers: str | None) -> Any:
        """Post any body to getSessionToken: bytes and text as they are, all else as JSON."""
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        content_type = headers.pop("content_type", "application/json")
        return self.client.generic(
            "POST", "/ags/getSessionToken", raw, content_type, headers=self.headers(**headers)
        )

    def present(self, token: str, **headers: str | None) -> Any:
        """Post that OperatorAuthToken."""
        return self.post({"parameters": [{"name": "OperatorAuthToken", "value": token}]}, **headers)

    def discover(self, **headers: str | None) -> Any:
        """Ask for the services."""
        return self.client.get(
            "/ags/servicediscovery", headers=self.headers(**{"x_auth_service_id": None, **headers})
        )


@dataclass
class ClientApp:
    """A subscriber's app: knows the gate, its operator's tenant and service, and what it was given."""

    head_end: HeadEnd
    client: Any = None
    tokens: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.client = self.client or self.head_end.client

    def call(self, path: str, body: Any = None, **headers: str | None) -> Any:
        """Post to any address: JSON, or no body at all."""
        content_type = "application/json" if body is not None else ""
        raw = body if isinstance(body, bytes | str) else json.dumps(body) if body is not None else ""
        return self.client.generic(
            "POST",
            path,
            raw,
            headers.pop("content_type", content_type),
            headers=self.head_end.headers(**headers),
        )

    def redeem(self, session_token: str, **members: Any) -> Any:
        """Redeem that session token; as a new device unless `clientId` or something else is given."""
        device = members or {"deviceInformation": {"deviceType": "Android", "anything": [1, {"else": None}]}}
        body = {"parameters": [{"name": "sessionToken", "value": session_token}], **device}
        return self.call("/ags/signOnWithSessionToken", body)

    def session_token(self, account: str = "account-1") -> str:
        """What the head-end shows as a QR code."""
        answer = self.head_end.present(self.head_end.token(OpfAccountId=account))
        token: str = answer.json()["sessionToken"]
        return token

    def sign_on(self, account: str = "account-1", **members: Any) -> Any:
        """Go the whole way, and keep what is given."""
        answer = self.redeem(self.session_token(account), **members)
        if answer.status_code == 201:
            self.tokens = answer.json()
        return answer

    def prove(self, account: str, *, origin: str | None = None, **members: Any) -> Any:
        """Sign on by what the trial service believes; keep what is given."""
        device = members or {"deviceInformation": {"deviceType": "Android"}}
        body = {"parameters": [{"name": "Account", "value": account}], **device}
        answer = self.call("/ags/signOn", body, x_auth_service_id=TRIAL, origin=origin)
        if answer.status_code == 201:
            self.tokens = answer.json()
        return answer

    def choices(self, accounts: str = "account-1,account-2", **members: Any) -> list[str]:
        """The user account tokens that several accounts give, in their order."""
        return [one["userAccountToken"] for one in self.prove(accounts, **members).json()["accounts"]]

    def choose(self, user_token: str | None, body: Any = None, **headers: str | None) -> Any:
        """Choose the account of that user account token; keep what is given."""
        given = {"x_auth_service_id": TRIAL, "user_token": user_token, **headers}
        answer = self.call("/ags/subsequentSignOn", body, **given)
        if answer.status_code == 201:
            self.tokens = answer.json()
        return answer

    def refresh(self, token: str | None = None, **headers: str | None) -> Any:
        """Refresh with the token at hand, or another; keep what is given."""
        bearer = f"Bearer {token or self.tokens['refresh_token']}"
        given = {"x_auth_service_id": None, "authorization": bearer, **headers}
        answer = self.call("/ias/v3/token/actions/refresh", **given)
        if answer.status_code == 200 and token is None:
            self.tokens = answer.json()
        return answer

    def sign_out(self, token: str | None = None, **headers: str | None) -> Any:
        """End the sign-on."""
        bearer = f"Bearer {token or self.tokens['access_token']}"
        return self.call("/ags/signOut", **{"authorization": bearer, **headers})


@dataclass
class Platform:
    """A resource server of an operator: asks about the tokens that client apps show it."""

    client_id: str
    secret: str = field(repr=False)
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False), repr=False)

    @property
    def basic(self) -> str:
        """Its credentials as the Authorization header (RFC 6749, section 2.3.1)."""
        return "Basic " + base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()

    def post(self, path: str, form: Any, **headers: str | None) -> Any:
        """Post a form: pairs, or text and bytes as they are. A header of None is left out."""
        raw = form if isinstance(form, bytes | str) else urlencode(form)
        content_type = headers.pop("content_type", "application/x-www-form-urlencoded")
        given = {"authorization": self.basic, **{n.replace("_", "-"): v for n, v in headers.items()}}
        return self.client.generic(
            "POST",
            path,
            raw,
            content_type,
            headers={name: value for name, value in given.items() if value is not None},
        )

    def introspect(self, token: str, *, hint: str | None = None, **headers: str | None) -> Any:
        """Ask whether that token is active."""
        form = {"token": token} | ({} if hint is None else {"token_type_hint": hint})
        return self.post("/oauth/introspect", form, **headers)

    def revoke(self, token: str, **headers: str | None) -> Any:
        """Revoke that token."""
        return self.post("/oauth/revoke", {"token": token}, **headers)

    def sees(self, token: str) -> bool:
        """Whether that token is active, of whichever type it is."""
        active: bool = self.introspect(token, hint="refresh_token").json()["active"]
        return active


def platform(tenant_id: str, **fields: Any) -> Platform:
    """Set up a resource server of that operator, known to this process at once."""
    server = ResourceServer(tenant_id=tenant_id, name="Platform", **fields)
    secret = server.set_credentials()
    server.save()
    snapshot.invalidate(tenant_id)
    return Platform(server.client_id, secret)


def operator(tenant_id: str, secret: bytes, **settings: Any) -> HeadEnd:
    """Set up an operator with one enabled service and one active key."""
    tenant = Tenant(id=tenant_id, name=tenant_id.title())
    tenant.save()
    Service(
        tenant=tenant,
        name=SERVICE,
        strategy="operator_token",
        display_name="Customer Authentication",
        logo="https://customer.example/auth.png",
        enabled=True,
        settings=settings,
    ).save()
    head_end = HeadEnd(tenant_id, f"{tenant_id}-key-1", secret)
    add_key(head_end)
    return head_end


def add_trial(tenant_id: str) -> Service:
    """Let the operator offer a service that believes everything, known to this process at once."""
    service = Service(tenant_id=tenant_id, name=TRIAL, strategy="dummy", display_name=TRIAL, enabled=True)
    service.save()
    snapshot.invalidate(tenant_id)
    return service


def add_key(head_end: HeadEnd, **fields: Any) -> Key:
    """Make the gate trust the key of that head-end."""
    key = Key(
        tenant_id=head_end.tenant_id,
        kid=head_end.kid,
        algorithm=head_end.algorithm,
        **{"state": "active", **fields},
    )
    key.set_secret(head_end.secret)
    key.save()
    return key


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on SQLite what only PostgreSQL can show, and mark what uses no database."""
    for item in items:
        if connection.vendor != "postgresql" and item.get_closest_marker("postgresql"):
            item.add_marker(pytest.mark.skip(reason=NEEDS_POSTGRESQL))
        if not (item.get_closest_marker("django_db") or DATABASE_FIXTURES & {*item.fixturenames}):
            item.add_marker(RUN_ONCE)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the seed of the order in which the tests ran; `--no-header` leaves it out at the start."""
    if seed := config.getoption("randomly_seed", None):
        terminalreporter.write_line(f"Repeat this order with --randomly-seed={seed}")


@pytest.fixture(autouse=True)
def _first_look() -> Iterator[None]:
    """Each test starts as a fresh process would: no tenant read, no replay seen, no document fetched."""
    snapshot.__init__()  # type: ignore[misc]
    known_replays.clear()
    document.cache_clear()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("document "):  # it would store the outcome for the next test
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} hangs"


@pytest.fixture
def port() -> Iterator[int]:
    """A port of loopback for a server to bind, which no other process gets meanwhile."""
    with reserved_port() as reserved:
        yield reserved


@pytest.fixture
def stays_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has seen it believes, until a statement tells it otherwise."""
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0)


class SavedOperator:
    """The rows of an operator as `operator` saves them, to be inserted again without their validation."""

    def __init__(self, head_end: HeadEnd) -> None:
        self.head_end = head_end
        self._tenant = Tenant.objects.get(pk=head_end.tenant_id)
        self._rows = [
            (row, list(row.history.all()))
            for model in (SigningKey, Service, Key)
            for row in model.objects.for_tenant(self._tenant)
        ]
        self._rows.insert(0, (self._tenant, list(self._tenant.history.all())))

    def insert(self) -> HeadEnd:
        """Insert the rows and their history under new primary keys."""
        for saved, history in self._rows:
            row = _unsaved(saved, pk=saved.pk if saved is self._tenant else None)
            row.save_base(raw=True, force_insert=True)
            records = [_unsaved(record, pk=None, id=row.pk) for record in history]
            type(history[0]).objects.bulk_create(records)
        return replace(self.head_end, client=Client(raise_request_exception=False))


def _unsaved(row: Any, **changes: Any) -> Any:
    row = copy.copy(row)
    row._state = ModelState()
    for name, value in changes.items():
        setattr(row, name, value)
    return row


@pytest.fixture(scope="session", autouse=True)
def upstream_connections() -> Iterator[None]:
    """Close at the end, without a warning for each, what is kept of connections to servers that are gone."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        http._pool.cache_clear()
        gc.collect()


@pytest.fixture(scope="session")
def operators(django_db_setup: None, django_db_blocker: Any) -> dict[str, SavedOperator]:
    """The two operators, saved and rolled back once: each test that needs one inserts its rows."""
    secrets = {"nagra": bytes(range(1, 33)), "sunrise": bytes(range(101, 133))}
    with django_db_blocker.unblock(), transaction.atomic():
        saved = {name: SavedOperator(operator(name, secret)) for name, secret in secrets.items()}
        transaction.set_rollback(True)
    return saved


@pytest.fixture
def nagra(db: None, operators: dict[str, SavedOperator]) -> HeadEnd:
    """The operator of the tests."""
    return operators["nagra"].insert()


@pytest.fixture
def sunrise(db: None, operators: dict[str, SavedOperator]) -> HeadEnd:
    """The other operator."""
    return operators["sunrise"].insert()


@pytest.fixture
def app(nagra: HeadEnd) -> ClientApp:
    """The app of a subscriber of nagra."""
    return ClientApp(nagra)


@pytest.fixture
def trial(nagra: HeadEnd) -> Service:
    """A service of nagra to sign on with directly."""
    return add_trial("nagra")


@pytest.fixture
def staff(db: None) -> User:
    """Somebody who may do everything in the admin."""
    return User.objects.create_superuser("staff", password="a long staff password")


def person(group: str, *tenants: str) -> Client:
    """The browser of somebody of the staff: logged in, of that group, assigned to those tenants."""
    user = User.objects.create_user(f"{group} of {' '.join(tenants)}", is_staff=True)
    user.groups.set(Group.objects.filter(name=group))
    for tenant in tenants:
        Assignment(tenant_id=tenant, user=user).save()
    browser = Client()
    browser.force_login(user)
    return browser
