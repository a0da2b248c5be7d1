"""The snapshot of a tenant: no queries while it is fresh, and never stale for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from providers.contract import FailureReason
from tenants.models import Key, Service, Tenant
from tenants.snapshot import VERSIONS_MAX_AGE, snapshot
from tests.support.clients import SERVICE, HeadEnd
from tests.support.operators import add_key
from tests.support.snapshot import Clock, WaitingThreads, get_tenant, queries, read_versions, rename
from tests.support.waiting import PATIENCE, wait_until


def test_a_tenant_is_loaded_with_six_queries_and_then_cached(
    nagra: HeadEnd, sunrise: HeadEnd, clock: Clock
) -> None:
    with queries(6):  # all versions, the tenant, its services, signing keys, keys, resource servers
        first = get_tenant()
    with queries(0):
        assert all(get_tenant() is first for _ in range(100))
    with queries(5):
        get_tenant("sunrise")


def test_the_versions_are_read_again_only_when_they_are_stale(
    nagra: HeadEnd, pass_time: Callable[[float], None]
) -> None:
    first = get_tenant()
    pass_time(VERSIONS_MAX_AGE * 0.9)
    with queries(0):
        assert get_tenant() is first
    pass_time(VERSIONS_MAX_AGE * 0.2)
    with queries(1):
        assert get_tenant() is first
    with queries(0):
        assert get_tenant() is first


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
def test_a_change_is_visible_after_a_second_and_reloads_no_other_tenant(
    nagra: HeadEnd, sunrise: HeadEnd, pass_time: Callable[[float], None], change: Callable[[], None]
) -> None:
    before, other = get_tenant(), get_tenant("sunrise")
    change()
    assert get_tenant() is before
    pass_time(VERSIONS_MAX_AGE)
    with queries(6):
        after = get_tenant()
    assert after.version > before.version
    with queries(0):
        assert get_tenant("sunrise") is other


def test_the_snapshot_contains_the_changes(nagra: HeadEnd, pass_time: Callable[[float], None]) -> None:
    assert set(get_tenant().services) == {SERVICE}
    revoke()
    add()
    pass_time(VERSIONS_MAX_AGE)
    keys = get_tenant().services[SERVICE].keys.keys
    assert {kid: key.failure_reason(time.time()) for kid, key in keys.items()} == {
        "nagra-key-1": FailureReason.KEY_NOT_IN_FORCE,
        "new": None,
    }
    disable_service()
    pass_time(VERSIONS_MAX_AGE)
    assert get_tenant().services == {}


def test_a_disabled_tenant_is_unknown_until_it_is_enabled(
    nagra: HeadEnd, pass_time: Callable[[float], None]
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    get_tenant()
    for enabled in (False, True):
        tenant.enabled = enabled
        tenant.save()
        pass_time(VERSIONS_MAX_AGE)
        assert (snapshot.get_tenant("nagra") is not None) is enabled


def test_a_tenant_that_is_disabled_before_it_is_loaded_is_unknown(nagra: HeadEnd, clock: Clock) -> None:
    read_versions()
    Tenant.objects.filter(pk="nagra").update(enabled=False)
    with queries(1):
        assert snapshot.get_tenant("nagra") is None
    with queries(0):
        assert snapshot.get_tenant("nagra") is None


def test_unknown_tenants_need_no_query_and_no_memory(nagra: HeadEnd, clock: Clock) -> None:
    get_tenant()
    sizes = len(snapshot._tenants), len(snapshot._versions)
    with queries(0):
        for number in range(1000):
            assert snapshot.get_tenant(f"nobody-{number}") is None
    assert (len(snapshot._tenants), len(snapshot._versions)) == sizes


def test_reading_the_versions_makes_a_change_visible(nagra: HeadEnd) -> None:
    before = get_tenant()
    rename()
    read_versions()
    assert get_tenant().version == before.version + 1


def test_only_one_of_many_threads_reads_the_versions(nagra: HeadEnd, waiting: WaitingThreads) -> None:
    """A thread that waits for the lock uses the result of another if that query began after its call."""
    queries = 0

    def count(execute: Any, *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    def read() -> None:
        with connection.execute_wrapper(count):
            read_versions()
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        with waiting:
            thread = pool.submit(read)
            wait_until(lambda: len(waiting.at_the_lock) == 2, "the thread does not reach the lock")
            snapshot._versions_read_at = time.monotonic()
        thread.result(PATIENCE)
    assert queries == 0


def test_a_tenant_can_be_loaded_while_the_versions_are_read(nagra: HeadEnd) -> None:
    first = get_tenant()

    class Slow(str):  # hashed during the refresh: simulates that another thread adds a tenant
        __slots__ = ()

        def __hash__(self) -> int:
            snapshot._tenants[f"another-{len(snapshot._tenants)}"] = first
            return super().__hash__()

    snapshot._tenants[Slow("gone")] = first
    read_versions()
    assert snapshot._tenants == {"nagra": first}


def test_settings_and_secrets_are_ready_for_use_and_immutable(nagra: HeadEnd) -> None:
    service = get_tenant().services[SERVICE]
    assert service.settings == {
        "session_token_ttl": 300,
        "clock_skew": 30,
        "replay": "if_present",
        "max_lifetime": None,
    }
    key = service.keys.get("nagra-key-1")
    assert key is not None
    assert key.material == nagra.secret
    assert "material" not in repr(key), "key rings may be logged"
    for mapping in (service.settings, get_tenant().services, service.keys.keys):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        key.material = b""  # type: ignore[misc]


def test_a_key_that_is_not_in_force_is_decrypted_so_that_its_use_is_counted(nagra: HeadEnd) -> None:
    revoke()
    key = get_tenant().services[SERVICE].keys.get("nagra-key-1")
    assert key is not None
    assert key.material == nagra.secret
    assert key.failure_reason(time.time()) == FailureReason.KEY_NOT_IN_FORCE


def test_a_key_that_is_not_in_force_need_not_be_readable(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    revoke()
    Key.objects.for_tenant("nagra").update(sealed_secret=b"\x01 no such thing")
    key = get_tenant().services[SERVICE].keys.get("nagra-key-1")
    assert key is not None
    assert key.failure_reason(time.time()) == FailureReason.KEY_NOT_IN_FORCE
    assert caplog.records == []


def test_a_key_that_cannot_be_decrypted_is_rejected_and_logged_and_others_work(
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
    ("stored", "reason"),
    [
        ({"strategy": "gone"}, "its provider is not installed"),
        ({"settings": {"old": 1}}, "old: operator_token has no such setting."),
        ({"settings": []}, "Settings must be an object."),
    ],
)
def test_an_unusable_service_is_omitted_and_logged_and_others_work(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture, stored: dict[str, Any], reason: str
) -> None:
    Service(
        tenant_id="nagra", name="Second", strategy="operator_token", display_name="x", enabled=True
    ).save()
    Service.objects.for_tenant("nagra").filter(name="Second").update(**stored)
    with caplog.at_level(logging.ERROR):
        assert set(get_tenant().services) == {SERVICE}
    assert caplog.messages == [f"service not offered: {reason}"]
    assert nagra.present(nagra.token()).status_code == 200
    assert nagra.present(nagra.token(), x_auth_service_id="Second").status_code == 403
