"""Lookup of tenants: the event loop itself never reads them, and concurrent requests share a read."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from ags.api.errors import ApiError
from ags.api.request import resolve
from ags.api.request.resolve import get_service_or_403, get_tenant
from ags.database.threads import CONFIGURATION, run_in_thread
from ags.sessions.models import SessionToken
from providers.contract import Endpoint
from providers.dummy.strategy import Dummy
from providers.operator_token.strategy import OperatorToken
from tenants import snapshot as snapshot_module
from tenants.models import Key, Service, Tenant
from tenants.snapshot import VERSIONS_MAX_AGE, Snapshot
from tenants.tenant_snapshot import TenantSnapshot
from tests.support.clients import SERVICE, TRIAL, HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop
from tests.support.operators import add_key, add_trial_service
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)

TIMES = 10_000
"""How often a snapshot expires between the check and its use."""

CONCURRENT_REQUESTS = 25


class Clock:
    """The clock of the snapshot. It advances by `step` seconds after each read by the event loop."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self._step = step

    def monotonic(self) -> float:
        self.pass_time(0.000001)
        now = self.now
        if threading.current_thread() is threading.main_thread():
            self.pass_time(self._step)
        return now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class ObservedSnapshot(Snapshot):
    """Counts how often the event loop uses an expired snapshot, by when it expired."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.expired = Counter[str]()
        self._clock = clock
        self._was_fresh = False

    def is_fresh(self) -> bool:
        self._was_fresh = super().is_fresh()
        return self._was_fresh

    def get_cached_tenant(self, tenant_id: str) -> TenantSnapshot | None:
        # A request that finds it fresh uses it before other requests check it.
        was_fresh, self._was_fresh = self._was_fresh, False
        if self._clock.now - self._versions_read_at >= VERSIONS_MAX_AGE:
            self.expired["since the check" if was_fresh else "during the wait"] += 1
        return super().get_cached_tenant(tenant_id)


class Statements:
    """Records the statements of the configuration thread, and can block them or make them fail."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.may_continue = threading.Event()
        self.may_continue.set()
        self.error: Exception | None = None

    def __call__(self, execute: Any, sql: str, *args: Any) -> Any:
        self.executed.append(sql)
        assert self.may_continue.wait(PATIENCE)
        if self.error is not None:
            raise self.error from ValueError("the cause")
        return execute(sql, *args)

    def versions(self) -> int:
        """Return how often the versions of the tenants were read."""
        reads = [sql for sql in self.executed if sql.endswith('FROM "tenants_tenant"')]
        return sum('"allowed_origins", ' in sql for sql in reads)

    async def watch(self) -> None:
        """Start recording, for the running event loop."""
        await run_in_thread(lambda: connection.execute_wrappers.append(self), pool=CONFIGURATION)


@pytest.fixture
def statements() -> Statements:
    return Statements()


async def start_tasks() -> None:
    """Let new tasks start."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_event_loop_never_reads_an_expired_snapshot(
    nagra: HeadEnd, sunrise: HeadEnd, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, seen = itertools.count(), set()
    snapshot = ObservedSnapshot(clock := Clock(1.1 * VERSIONS_MAX_AGE))

    def change() -> None:
        for tenant in Tenant.objects.all():
            tenant.save()

    async def request() -> None:
        while snapshot.expired.total() < TIMES:
            number = next(numbers)
            if number % (TIMES // 20) == 0:
                await run_in_thread(change, pool=CONFIGURATION)
            tenant_id = ("nagra", "nobody", "nagra", "sunrise")[number % 4]
            try:
                tenant, service = await get_service_or_403(tenant_id, SERVICE, Endpoint.GET_SESSION_TOKEN)
                response = (tenant.id, service.name)
            except ApiError as error:
                response = ("nobody", error.log_reason)
            assert response == (tenant_id, "tenant_not_available" if tenant_id == "nobody" else SERVICE)
            seen.add(tenant_id)

    async def test() -> None:
        async with open_application():
            await statements.watch()
            await asyncio.gather(*[request() for _ in range(CONCURRENT_REQUESTS)])

    monkeypatch.setattr(snapshot_module, "time", clock)
    monkeypatch.setattr(resolve, "snapshot", snapshot)
    run_in_event_loop(test())
    assert seen == {"nagra", "sunrise", "nobody"}
    # Requests that wait share a read of the versions; some use it twice, and load a tenant in between.
    assert statements.versions() >= TIMES // (2 * CONCURRENT_REQUESTS)
    assert snapshot.expired["since the check"] > 0


def test_concurrent_requests_share_a_read_of_an_old_snapshot(
    nagra: HeadEnd, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with open_application():
            await statements.watch()
            before = await get_tenant("nagra")
            clock.pass_time(2 * VERSIONS_MAX_AGE)
            statements.executed.clear()
            statements.may_continue.clear()
            first, *others = [asyncio.create_task(get_tenant("nagra")) for _ in range(20)]
            await start_tasks()
            first.cancel()
            await start_tasks()
            assert first.cancelled()
            assert not any(task.done() for task in others), "the read is not cancelled"
            statements.may_continue.set()
            assert await asyncio.gather(*others) == [before] * 19
            assert statements.versions() == 1
            assert len(statements.executed) == len(set(statements.executed))

    monkeypatch.setattr(snapshot_module, "time", clock := Clock())
    run_in_event_loop(test())


def test_concurrent_requests_get_separate_copies_of_an_error(nagra: HeadEnd, statements: Statements) -> None:
    async def test() -> None:
        async with open_application():
            await statements.watch()
            statements.error = OperationalError("unavailable")
            statements.may_continue.clear()
            tasks = [asyncio.create_task(get_tenant("nagra")) for _ in range(20)]
            await start_tasks()
            statements.may_continue.set()
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(error) for error in errors} == {OperationalError}
            assert len({id(error) for error in errors}) == 20
            assert {str(error.__cause__) for error in errors if isinstance(error, Exception)} == {"the cause"}
            assert len(statements.executed) == 1, "the statement is not repeated"
            statements.error = None
            tenant = await get_tenant("nagra")
            assert tenant is not None
            assert tenant.id == "nagra"

    run_in_event_loop(test())


# Changes during a request


def rename() -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.name += "!"
    tenant.save()


def change_lifetime() -> None:
    service = Service.objects.for_tenant("nagra").get(name=TRIAL)
    service.settings |= {"session_token_ttl": service.settings.get("session_token_ttl", 300) - 1}
    service.save()


def add_another_key() -> None:
    add_key(HeadEnd("nagra", "another", bytes(range(60, 100))))


def disable_service() -> None:
    Service.objects.for_tenant("nagra").filter(name=TRIAL).update(enabled=False)
    rename()


def revoke_key() -> None:
    key = Key.objects.for_tenant("nagra").get(kid="nagra-key-1")
    key.state = "revoked"
    key.save()


class Verifications:
    """Counts the calls of `verify`. During each of the first calls, one of the changes is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, strategy: Any, *changes: Callable[[], None]) -> None:
        self.number = 0
        verify, pending = strategy.verify, list(changes)

        def verify_while_rows_change(*args: Any) -> Any:
            self.number += 1
            result = verify(*args)
            if pending:
                with ThreadPoolExecutor(1) as other:
                    other.submit(pending.pop(0)).result(PATIENCE)
                    other.submit(connections.close_all).result(PATIENCE)
            return result

        monkeypatch.setattr(strategy, "verify", verify_while_rows_change)


@pytest.mark.parametrize(
    ("changes", "response", "verifications"),
    [
        ([rename], 200, 1),
        ([add_another_key], 200, 2),
        ([change_lifetime], 200, 2),
        ([disable_service], "service_not_available", 1),
        ([change_lifetime, change_lifetime], "unavailable", 2),
    ],
)
def test_changed_tenant_is_read_again_and_verified_again_if_necessary(
    nagra: HeadEnd,
    stale_snapshots: None,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Callable[[], None]],
    response: int | str,
    verifications: int,
) -> None:
    async def post_request() -> tuple[int, Any]:
        body = {"parameters": [{"name": "Account", "value": "account-1"}]}
        return await post_json("/ags/getSessionToken", body, nagra.headers(x_auth_service_id=TRIAL))

    async def test() -> None:
        async with open_application():
            assert (await post_request())[0] == 200
            counted = Verifications(monkeypatch, Dummy, *changes)
            status, body = await post_request()
            assert body.get("reason", status) == response
            assert counted.number == verifications

    add_trial_service("nagra")
    run_in_event_loop(test())
    assert SessionToken.objects.for_tenant("nagra").count() == 1 + (response == 200)


def test_key_revoked_during_a_request_issues_nothing(
    nagra: HeadEnd, stale_snapshots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = HeadEnd("nagra", "nagra-key-2", bytes(range(60, 100)))

    def rotate() -> None:
        add_key(new)
        key = Key.objects.for_tenant("nagra").get(kid=nagra.kid)
        key.state = "retiring"
        key.save()

    async def post_request(head_end: HeadEnd) -> int:
        body = {"parameters": [{"name": "OperatorAuthToken", "value": head_end.token()}]}
        status, _ = await post_json("/ags/getSessionToken", body, head_end.headers())
        return status

    async def test() -> None:
        async with open_application():
            await post_request(nagra)
            during_rotation = Verifications(monkeypatch, OperatorToken, rotate)
            assert await post_request(nagra) == 200
            assert during_rotation.number == 2, "with the key as active and as retiring"
            Verifications(monkeypatch, OperatorToken, revoke_key)
            assert [await post_request(nagra), await post_request(new)] == [401, 200]

    run_in_event_loop(test())
    keys = SessionToken.objects.for_tenant("nagra").values_list("key__kid", flat=True).order_by("pk")
    assert list(keys) == [nagra.kid, nagra.kid, new.kid]
