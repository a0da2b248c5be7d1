"""The process-wide cache of tenants (`tenants/tenant_snapshot.py`).

A cached tenant may be out of date. That is safe: every SQL statement that grants something checks the version
at which the tenant was read, so a stale snapshot costs a second attempt and never grants anything wrongly.
"""

import copy
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from heapq import nsmallest

from django.db import connection
from django.db.models.functions import Now

from providers.contract.clock import database_clock
from tenants.models import Tenant
from tenants.tenant_snapshot import TenantSnapshot, load_tenant

VERSIONS_MAX_AGE = 1.0
"""Seconds for which the versions of the tenants are used without querying the database again."""


class Snapshot:
    """A cache of all enabled tenants.

    At most once in `VERSIONS_MAX_AGE`, one query reads the versions of all tenants. A tenant is loaded again
    only if its version has changed, and by one thread: the others wait for it. An unknown ID needs no query.

    `configuration_version`: the version of the whole configuration when the versions were last read, or 0
    before. `configuration_version_text`: the same for a header, so that no request converts it.
    """

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._origins: dict[str, list[str]] = {}
        self._all_origins: frozenset[str] = frozenset()
        self._tenants: dict[str, TenantSnapshot] = {}
        self._loading: dict[str, Future[TenantSnapshot | None]] = {}
        self.configuration_version = 0
        self.configuration_version_text = b"0"
        self._versions_read_at = self._failed_at = float("-inf")
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def is_fresh(self) -> bool:
        """Return whether the versions can be used without querying the database."""
        return time.monotonic() - self._versions_read_at < VERSIONS_MAX_AGE

    def has_tenant(self, tenant_id: str) -> bool:
        """Return whether the tenant existed and was enabled when the versions were last read."""
        return tenant_id in self._versions

    def first_tenants(self, number: int) -> frozenset[str]:
        """Return at most `number` of the tenants of `has_tenant`, in the order of their IDs."""
        ids = self._versions
        return frozenset(ids if len(ids) <= number else nsmallest(number, ids))

    def has_service(self, tenant_id: str, name: str) -> bool:
        """Return whether the tenant had an enabled service of this name when it was last loaded."""
        tenant = self._tenants.get(tenant_id)
        return tenant is not None and name in tenant.services

    def get_cached_tenant(self, tenant_id: str) -> TenantSnapshot | None:
        """Return the tenant without querying the database; None if it was unknown or disabled when last read.

        Raises LookupError if it has to be loaded first.
        """
        version = self._versions.get(tenant_id)
        if version is None:
            return None
        tenant = self._tenants.get(tenant_id)
        if tenant is None or tenant.version != version:
            raise LookupError(tenant_id)
        return tenant

    def refresh_if_stale(self) -> None:
        """Read the versions unless they are fresh. Raises Django's database errors."""
        oldest = time.monotonic() - VERSIONS_MAX_AGE
        if self._versions_read_at < oldest:
            self._read_versions(oldest)

    def get_tenant(self, tenant_id: str) -> TenantSnapshot | None:
        """Return the tenant, or None if it is unknown or disabled. Raises Django's database errors."""
        self.refresh_if_stale()
        version = self._versions.get(tenant_id)
        if version is None:
            return None
        tenant = self._tenants.get(tenant_id)
        while tenant is None or tenant.version != version:
            own_load: Future[TenantSnapshot | None] = Future()
            load = self._loading.setdefault(tenant_id, own_load)
            if load is own_load:
                self._load(tenant_id, own_load)
                return own_load.result()
            tenant = _wait_for_result(load)
            if tenant is None or tenant.version > version:
                return tenant
        return tenant

    def invalidate(
        self, tenant_id: str, stale: TenantSnapshot | None = None, since: float | None = None
    ) -> None:
        """Drop the cached tenant, even if its version is current, and read the versions again.

        With `stale`, drops only that snapshot, and keeps a later one that another thread has loaded. With
        `since`, a time of `time.monotonic()`, reads the versions only if they were read before it: so threads
        that see the same change share one query.
        """
        if stale is None or self._tenants.get(tenant_id) is stale:
            self._tenants.pop(tenant_id, None)
        self._read_versions(time.monotonic() if since is None else since)

    def is_listed_origin(self, origin: str) -> bool:
        """Return whether an enabled tenant listed the origin when the versions were last read."""
        return origin in self._all_origins

    def get_origins(self, tenant_id: str) -> Sequence[str]:
        """Return the origins that the tenant listed when the versions were last read."""
        return self._origins.get(tenant_id, ())

    def _read_versions(self, since: float) -> None:
        called_at = time.monotonic()
        with self._lock:
            if self._versions_read_at >= since:  # another thread has read them
                return
            if self._failure is not None and self._failed_at >= called_at:  # or has failed to
                raise copy.copy(self._failure) from self._failure.__cause__
            started_at = time.monotonic()
            try:
                columns = ("id", "version", "allowed_origins", "enabled", Now())
                rows = list(Tenant.objects.values_list(*columns))
            except Exception as error:
                self._failed_at, self._failure = time.monotonic(), error
                raise
            self._failure = None
            if rows and connection.vendor == "postgresql":  # SQLite uses the clock of the machine
                database_clock.add(rows[0][-1].timestamp(), started_at)
            versions = {tenant_id: version for tenant_id, version, _, enabled, _ in rows if enabled}
            origins = {tenant_id: listed for tenant_id, _, listed, enabled, _ in rows if enabled and listed}
            if origins != self._origins:
                self._origins = origins
                self._all_origins = frozenset(origin for listed in origins.values() for origin in listed)
            # Iterate over a copy: other threads add tenants concurrently. One that is lost is loaded again.
            self._tenants = {key: tenant for key, tenant in self._tenants.copy().items() if key in versions}
            self._versions = versions
            total = sum(version for _, version, *_ in rows)
            if total != self.configuration_version:
                self.configuration_version_text = str(total).encode()
                self.configuration_version = total
            self._versions_read_at = started_at

    def _load(self, tenant_id: str, load: Future[TenantSnapshot | None]) -> None:
        try:
            tenant = load_tenant(tenant_id)
            if tenant is None:
                self._versions.pop(tenant_id, None)
                self._tenants.pop(tenant_id, None)
            else:
                self._tenants[tenant_id] = tenant
                if tenant.version > self._versions.get(tenant_id, 0):  # never replace a newer version
                    self._versions[tenant_id] = tenant.version
        except BaseException as error:  # noqa: BLE001 - waiting threads need every exception
            del self._loading[tenant_id]
            load.set_exception(error)
        else:
            del self._loading[tenant_id]
            load.set_result(tenant)


snapshot = Snapshot()
"""The instance of this process."""


def _wait_for_result(load: Future[TenantSnapshot | None]) -> TenantSnapshot | None:
    error = load.exception()
    if error is not None:
        # A copy for each waiting thread, so that each has its own traceback.
        raise copy.copy(error) from error.__cause__
    return load.result()
