"""What requests read of a tenant: at no cost when warm, and never old for long."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from providers.contract import FailureReason
from tenants import snapshot as module
from tenants.models import Key, Service, Tenant
from tenants.snapshot import FRESH_FOR, snapshot
from tenants.tenant_snapshot import TenantSnapshot
from tests.conftest import SERVICE, HeadEnd, add_key
from tests.waiting import PATIENCE, wait_until


@contextmanager
def queries(number: int) -> Iterator[CaptureQueriesContext]:
    with CaptureQueriesContext(connection) as captured:
        yield captured
    assert len(captured) == number, [query["sql"] for query in captured]


class Clock:
    """The clock of the snapshot: a test moves it, and it moves by a microsecond when it is read."""

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._read = itertools.count(1)

    def monotonic(self) -> float:
        return self._now + next(self._read) / 1_000_000

    def pass_time(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Only the test decides what is fresh, however long it takes."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pass_time(clock: Clock) -> Callable[[float], None]:
    """Let seconds go by for the snapshot, and for nobody else."""
    return clock.pass_time


class Comers:
    """The threads that have come to where they may have to wait: the lock, or what another one reads."""

    def __init__(self) -> None:
        self.at_the_lock: list[int] = []
        self.at_a_reader: list[int] = []
        self._lock = threading.Lock()
        self._outcome = module._outcome

    def __enter__(self) -> None:
        self.at_the_lock.append(threading.get_ident())
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def outcome(self, reading: Any) -> Any:
        self.at_a_reader.append(threading.get_ident())
        return self._outcome(reading)


@pytest.fixture
def comers(monkeypatch: pytest.MonkeyPatch) -> Comers:
    comers = Comers()
    monkeypatch.setattr(snapshot, "_lock", comers)
    monkeypatch.setattr(module, "_outcome", comers.outcome)
    return comers


def ask_for_versions() -> None:
    """Have the snapshot ask, and keep what was read of the tenant."""
    snapshot.reread("another")


def view(tenant_id: str = "nagra") -> TenantSnapshot:
    found = snapshot.tenant(tenant_id)
    assert found is not None
    return found


def test_a_tenant_is_read_in_six_queries_and_then_in_none(
    nagra: HeadEnd, sunrise: HeadEnd, clock: Clock
) -> None:
    with queries(6):  # the versions of all, the tenant, its services, keys, signing keys, resource servers
        first = view()
    with queries(0):
        assert all(view() is first for _ in range(100))
    with queries(5):
        view("sunrise")


def test_while_it_is_fresh_nobody_asks_and_then_one_query_does(
    nagra: HeadEnd, pass_time: Callable[[float], None]
) -> None:
    first = view()
    pass_time(FRESH_FOR * 0.9)
    with queries(0):
        assert view() is first
    pass_time(FRESH_FOR * 0.2)
    with queries(1):
        assert view() is first
    with queries(0):
        assert view() is first


def rename() -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.name = "x"
    tenant.save()


def disable_service() -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.enabled = False
    service.save()


def revoke() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.state = "revoked"
    key.save()


def add() -> None:
    add_key(HeadEnd("nagra", "new", bytes(range(60, 100))))


@pytest.mark.parametrize("change", [rename, disable_service, revoke, add])
def test_a_change_is_seen_after_a_second_at_the_latest_and_no_other_tenant_is_read_again(
    nagra: HeadEnd, sunrise: HeadEnd, pass_time: Callable[[float], None], change: Callable[[], None]
) -> None:
    before, other = view(), view("sunrise")
    change()
    assert view() is before
    pass_time(FRESH_FOR)
    with queries(6):
        after = view()
    assert after.version > before.version
    with queries(0):
        assert view("sunrise") is other


def test_what_is_seen_is_what_was_changed(nagra: HeadEnd, pass_time: Callable[[float], None]) -> None:
    assert set(view().services) == {SERVICE}
    disable_service()
    revoke()
    add()
    pass_time(FRESH_FOR)
    after = view()
    assert after.services == {}
    assert {kid: key.failure_reason(time.time()) for kid, key in after.keys.keys.items()} == {
        "nagra-key-1": FailureReason.KEY_NOT_IN_FORCE,
        "new": None,
    }


def test_a_disabled_tenant_is_gone_and_comes_back(nagra: HeadEnd, pass_time: Callable[[float], None]) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    view()
    for enabled in (False, True):
        tenant.enabled = enabled
        tenant.save()
        pass_time(FRESH_FOR)
        assert (snapshot.tenant("nagra") is not None) is enabled


def test_a_tenant_that_disappears_while_it_is_read_is_no_tenant(nagra: HeadEnd, clock: Clock) -> None:
    ask_for_versions()
    Tenant.objects.filter(pk="nagra").update(enabled=False)
    with queries(1):
        assert snapshot.tenant("nagra") is None
    with queries(0):
        assert snapshot.tenant("nagra") is None


def test_an_unknown_tenant_costs_nothing_however_many_are_tried(nagra: HeadEnd, clock: Clock) -> None:
    view()
    held = len(snapshot._views), len(snapshot._versions)
    with queries(0):
        for number in range(1000):
            assert snapshot.tenant(f"nobody-{number}") is None
    assert (len(snapshot._views), len(snapshot._versions)) == held, "nor does it take memory"


def test_an_answer_from_before_is_not_believed_when_somebody_must_know(nagra: HeadEnd) -> None:
    before = view()
    rename()
    ask_for_versions()
    assert view().version == before.version + 1


def test_only_one_of_many_threads_asks(nagra: HeadEnd, comers: Comers) -> None:
    """Those that wait while one asks take its answer, if it was asked for after they came."""
    asked = 0

    def count(execute: Any, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return execute(*arguments)

    def ask() -> None:
        with connection.execute_wrapper(count):
            ask_for_versions()
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        with comers:
            thread = pool.submit(ask)
            wait_until(lambda: len(comers.at_the_lock) == 2, "it does not come")
            snapshot._asked_at = time.monotonic()
        thread.result(PATIENCE)
    assert asked == 0


def test_a_tenant_that_is_read_during_a_refresh_disturbs_it_not(nagra: HeadEnd) -> None:
    first = view()

    class Slow(str):  # while the refresh looks at it, another thread reads a tenant for the first time
        __slots__ = ()

        def __hash__(self) -> int:
            snapshot._views[f"another-{len(snapshot._views)}"] = first
            return super().__hash__()

    snapshot._views[Slow("gone")] = first
    ask_for_versions()
    assert snapshot._views == {"nagra": first}


def test_settings_and_secrets_are_prepared_and_cannot_be_changed(nagra: HeadEnd) -> None:
    service = view().services[SERVICE]
    assert service.settings == {
        "session_token_ttl": 300,
        "clock_skew": 30,
        "replay": "if_present",
        "max_lifetime": None,
    }
    key = view().keys.get("nagra-key-1")
    assert key is not None
    assert key.material == nagra.secret
    assert "material" not in repr(key), "a ring may be logged"
    for mapping in (service.settings, view().services, view().keys.keys):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        key.material = b""  # type: ignore[misc]


def test_a_key_that_is_not_in_force_is_not_decrypted(nagra: HeadEnd) -> None:
    revoke()
    key = view().keys.get("nagra-key-1")
    assert key is not None
    assert key.material != nagra.secret
    assert key.failure_reason(time.time()) == FailureReason.KEY_NOT_IN_FORCE


def test_a_key_that_cannot_be_decrypted_is_refused_and_logged_and_the_others_work(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    other = HeadEnd("nagra", "other", bytes(range(60, 100)))
    add_key(other)
    Key.objects.for_tenant("nagra").filter(kid=nagra.kid).update(sealed_secret=b"\x01 no such thing")
    with caplog.at_level(logging.ERROR):
        assert nagra.present(nagra.token()).status_code == 401
    (record,) = [record for record in caplog.records if record.name == "tenants.tenant_snapshot"]
    assert (record.getMessage(), record.__dict__["tenant"], record.__dict__["kid"]) == (
        "key cannot be decrypted",
        "nagra",
        "nagra-key-1",
    )
    assert other.present(other.token()).status_code == 200


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ({"strategy": "gone"}, "its provider is not installed"),
        ({"settings": {"old": 1}}, "old: operator_token has no such setting."),
        ({"settings": []}, "Settings are an object."),
    ],
)
def test_a_service_that_cannot_be_offered_is_left_out_and_logged_and_the_rest_works(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture, stored: dict[str, Any], why: str
) -> None:
    Service(
        tenant_id="nagra", name="Second", strategy="operator_token", display_name="x", enabled=True
    ).save()
    Service.objects.for_tenant("nagra").filter(name="Second").update(**stored)
    with caplog.at_level(logging.ERROR):
        assert set(view().services) == {SERVICE}
    assert caplog.messages == [f"service not offered: {why}"]
    assert nagra.present(nagra.token()).status_code == 200
    assert nagra.present(nagra.token(), x_auth_service_id="Second").status_code == 403


def at_once(number: int, work: Callable[[], None]) -> None:
    """Have so many threads do it at the same time, each with a connection of its own."""
    together = threading.Barrier(number)

    def begin() -> None:
        together.wait(PATIENCE)
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(number) as pool:
        for thread in [pool.submit(begin) for _ in range(number)]:
            thread.result(PATIENCE)


class Away:
    """A database that fails the first statement when so many threads wait for it, and counts statements."""

    def __init__(self, comers: Comers, waiting: int) -> None:
        self.asked = 0
        self.told: list[Exception] = []
        self._comers, self._waiting = comers, waiting

    def __call__(self, *_: Any) -> Any:
        self.asked += 1
        wait_until(self._others_wait, "the others do not come")
        raise OperationalError("away")

    def _others_wait(self) -> bool:
        # Who asks came to the lock as well.
        return max(len(self._comers.at_the_lock) - 1, len(self._comers.at_a_reader)) == self._waiting

    def read(self) -> None:
        try:
            with connection.execute_wrapper(self):
                snapshot.tenant("nagra")
        except OperationalError as error:
            self.told.append(error)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_tenant_that_has_changed_is_read_once_for_all_threads_that_met_the_old_one(
    nagra: HeadEnd, clock: Clock, comers: Comers
) -> None:
    old = view()
    rename()
    asked: list[str] = []
    seen: list[TenantSnapshot | None] = []
    comers.at_the_lock.clear()

    def slowly(execute: Any, sql: str, *arguments: Any) -> Any:
        asked.append(sql)
        if len(asked) == 1:
            wait_until(lambda: len(comers.at_the_lock) == 8, "not all ask for the versions")
        elif len(asked) == 2:
            wait_until(lambda: len(comers.at_a_reader) == 7, "not all others wait for the tenant")
        return execute(sql, *arguments)

    def judge_again() -> None:
        with connection.execute_wrapper(slowly):
            snapshot.reread("nagra", old, refused_at)
            seen.append(snapshot.tenant("nagra"))

    refused_at = clock.monotonic()
    at_once(8, judge_again)
    assert [found.version for found in seen if found] == [old.version + 1] * 8
    assert [table_of(sql) for sql in asked] == [
        "tenant",  # the versions
        "tenant",
        "service",
        "signingkey",
        "key",
        "resourceserver",
    ]


def table_of(sql: str) -> str:
    return sql.partition('FROM "tenants_')[2].partition('"')[0]


def test_what_was_asked_before_a_refusal_says_nothing_of_it(nagra: HeadEnd) -> None:
    old = view()
    ask_for_versions()
    rename()
    snapshot.reread("nagra", old, time.monotonic())
    assert view().version == old.version + 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("versions_are_known", [True, False])
def test_those_that_wait_for_a_thread_fail_with_it_and_not_in_turn(
    nagra: HeadEnd, clock: Clock, comers: Comers, versions_are_known: bool
) -> None:
    if versions_are_known:
        ask_for_versions()
        comers.at_the_lock.clear()
    away = Away(comers, 3)
    at_once(4, away.read)
    assert len({id(error) for error in away.told}) == 4, "each has an error of its own"
    assert away.asked == 1
    assert view().id == "nagra", "and who comes later asks again"


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_who_was_slow_to_read_does_not_take_the_version_back(nagra: HeadEnd) -> None:
    ask_for_versions()
    changed = False

    def change_meanwhile(execute: Any, sql: str, *arguments: Any) -> Any:
        nonlocal changed
        if 'FROM "tenants_key"' in sql and not changed:
            changed = True
            with ThreadPoolExecutor() as pool:
                pool.submit(elsewhere).result(PATIENCE)
        return execute(sql, *arguments)

    def elsewhere() -> None:
        rename()
        ask_for_versions()
        connection.close()

    with connection.execute_wrapper(change_meanwhile):
        old = view()
    assert view().version == old.version + 1
