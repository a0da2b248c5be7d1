"""Fixtures of all tests: two operators, a client app and staff."""

from __future__ import annotations

import gc
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from ags.api import failure_limit
from ags.database.clock import clock_log
from ags.limits import LIMITERS
from ags.sessions.admin import revocation_impact, timeouts
from ags.sessions.services.replays import known_replays
from providers.contract.clock import database_clock
from providers.upstream import document, http
from tenants import snapshot as tenants_snapshot
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.markers import NEEDS_POSTGRESQL, RUN_ONCE
from tests.support.network import close_network
from tests.support.operators import SavedOperator, add_trial_service, create_operator
from tests.support.upstream.process import reserved_port
from tests.support.waiting import PATIENCE

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup"}

close_network()
# The parent process may ignore interrupts (`&` in a shell, nohup). Child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need PostgreSQL on SQLite, and mark those that use no database."""
    for item in items:
        if connection.vendor != "postgresql" and item.get_closest_marker("postgresql"):
            item.add_marker(pytest.mark.skip(reason=NEEDS_POSTGRESQL))
        if not (
            item.get_closest_marker("django_db") or DATABASE_FIXTURES & {*getattr(item, "fixturenames", ())}
        ):
            item.add_marker(RUN_ONCE)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the seed of the order of the tests, which `--no-header` omits at the start."""
    if seed := config.getoption("randomly_seed", None):
        terminalreporter.write_line(f"Repeat this order with --randomly-seed={seed}")


@pytest.fixture(autouse=True)
def _fresh_process_state() -> Iterator[None]:
    """Start each test with the caches of a new process: tenants, the clock, replays and documents."""
    snapshot.__init__()  # type: ignore[misc]
    database_clock.__init__()  # type: ignore[misc]
    clock_log.__init__()  # type: ignore[misc]
    known_replays.clear()
    document.cache_clear()
    failure_limit.blocks.__init__()  # type: ignore[misc]
    for limiter in LIMITERS:
        limiter.__init__(limiter.name, seconds=limiter.seconds, unshared=limiter.unshared)  # type: ignore[misc]
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("document "):  # it would store its result during the next test
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} hangs"


@pytest.fixture
def port() -> Iterator[int]:
    """A port of loopback that a server can bind and no other process gets."""
    with reserved_port() as reserved:
        yield reserved


@pytest.fixture
def stale_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps its snapshots until a statement shows that they are stale."""
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0)


@pytest.fixture(autouse=True)
def _patient_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of staff wait for their statements on a slow machine, too."""
    monkeypatch.setattr(timeouts, "SEARCH_TIMEOUT", PATIENCE * 1000)
    monkeypatch.setattr(revocation_impact, "COUNT_TIMEOUT", PATIENCE * 1000)


@pytest.fixture(scope="session", autouse=True)
def upstream_connections() -> Iterator[None]:
    """Close pooled connections to stopped servers at the end, without a warning for each."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        http._pool.cache_clear()
        gc.collect()


@pytest.fixture(scope="session")
def operators(django_db_setup: None, django_db_blocker: Any) -> dict[str, SavedOperator]:
    """The two operators, saved and rolled back once. Each test that needs one inserts its rows."""
    secrets = {"nagra": bytes(range(1, 33)), "sunrise": bytes(range(101, 133))}
    with django_db_blocker.unblock(), transaction.atomic():
        saved = {name: SavedOperator(create_operator(name, secret)) for name, secret in secrets.items()}
        transaction.set_rollback(True)
    return saved


@pytest.fixture
def nagra(db: None, operators: dict[str, SavedOperator]) -> HeadEnd:
    """The default operator."""
    return operators["nagra"].insert()


@pytest.fixture
def sunrise(db: None, operators: dict[str, SavedOperator]) -> HeadEnd:
    """Another operator, whose data must be separate."""
    return operators["sunrise"].insert()


@pytest.fixture
def app(nagra: HeadEnd) -> ClientApp:
    """The app of a subscriber of nagra."""
    return ClientApp(nagra)


@pytest.fixture
def trial(nagra: HeadEnd) -> Service:
    """A service of nagra for direct sign-ons."""
    return add_trial_service("nagra")


@pytest.fixture
def staff(db: None) -> User:
    """A user with all permissions in the admin."""
    return User.objects.create_superuser("staff", password="a long staff password")
