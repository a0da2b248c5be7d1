"""A clock for the snapshot, and threads that wait for it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants import snapshot as module
from tenants.models import Tenant
from tenants.snapshot import snapshot
from tenants.tenant_snapshot import TenantSnapshot


@contextmanager
def queries(number: int) -> Iterator[CaptureQueriesContext]:
    with CaptureQueriesContext(connection) as captured:
        yield captured
    assert len(captured) == number, [query["sql"] for query in captured]


class Clock:
    """The clock of the snapshot: advanced by the test, and by a microsecond with each reading."""

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._read = itertools.count(1)

    def monotonic(self) -> float:
        return self._now + next(self._read) / 1_000_000

    def pass_time(self, seconds: float) -> None:
        self._now += seconds


class WaitingThreads:
    """Records the threads that have reached the lock, or that wait for a load by another thread."""

    def __init__(self) -> None:
        self.at_the_lock: list[int] = []
        self.at_a_load: list[int] = []
        self._lock = threading.Lock()
        self._wait_for_result = module._wait_for_result

    def __enter__(self) -> None:
        self.at_the_lock.append(threading.get_ident())
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait_for_result(self, load: Any) -> Any:
        self.at_a_load.append(threading.get_ident())
        return self._wait_for_result(load)


def read_versions() -> None:
    """Have the snapshot read the versions, without dropping the cached tenant."""
    snapshot.invalidate("another")


def get_tenant(tenant_id: str = "nagra") -> TenantSnapshot:
    tenant = snapshot.get_tenant(tenant_id)
    assert tenant is not None
    return tenant


def rename() -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.name = "x"
    tenant.save()
