"""The tenants as this process last saw them, one immutable view of each (`tenants/tenant_snapshot.py`).

A view may be a little old. That is safe, for what is granted is granted by a statement that asks the rows
themselves and names the version the view was read at; an old view costs a second look, never a wrong yes.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from tenants.models import Tenant
from tenants.tenant_snapshot import TenantSnapshot, read

FRESH_FOR = 1.0
"""Seconds for which the versions of the tenants are believed without asking the database again."""


class Snapshot:
    """All tenants as this process last saw them.

    Once in `FRESH_FOR` seconds one query asks for the version of every tenant; a tenant is read again only
    when its version moved, and by one thread: the others wait for what that one has read. An unknown tenant
    id costs no query, however many are tried.
    """

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._origins: dict[str, list[str]] = {}
        self._all_origins: frozenset[str] = frozenset()
        self._views: dict[str, TenantSnapshot] = {}
        self._reading: dict[str, Future[TenantSnapshot | None]] = {}
        self._asked_at = self._failed_at = float("-inf")
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def is_fresh(self) -> bool:
        """Return whether the versions are believed without asking the database."""
        return time.monotonic() - self._asked_at < FRESH_FOR

    def last_read(self, tenant_id: str) -> TenantSnapshot | None:
        """Return the tenant as it was last read, without asking the database whether it has changed.

        None when it was unknown or disabled then. Raises LookupError when it has to be read first.
        """
        version = self._versions.get(tenant_id)
        if version is None:
            return None
        view = self._views.get(tenant_id)
        if view is None or view.version != version:
            raise LookupError(tenant_id)
        return view

    def refresh_if_old(self) -> None:
        """Ask for the versions unless they are fresh. Raises Django's database errors."""
        oldest = time.monotonic() - FRESH_FOR
        if self._asked_at < oldest:
            self._ask(oldest)

    def tenant(self, tenant_id: str) -> TenantSnapshot | None:
        """Return that tenant, or None when it is unknown or disabled. Raises Django's database errors."""
        self.refresh_if_old()
        version = self._versions.get(tenant_id)
        if version is None:
            return None
        view = self._views.get(tenant_id)
        while view is None or view.version != version:
            mine: Future[TenantSnapshot | None] = Future()
            reading = self._reading.setdefault(tenant_id, mine)
            if reading is mine:
                self._read(tenant_id, mine)
                return mine.result()
            view = _outcome(reading)
            if view is None or view.version > version:
                return view
        return view

    def reread(self, tenant_id: str, seen: TenantSnapshot | None = None, since: float | None = None) -> None:
        """Forget what was read of that tenant, whatever version it bears, and ask anew.

        What another thread has read after the view that was `seen` stays, if it is of the version of now.
        What was asked after `since`, a moment of `time.monotonic()`, is not asked again, so that the threads
        which a change has met at once ask together.
        """
        if seen is None or self._views.get(tenant_id) is seen:
            self._views.pop(tenant_id, None)
        self._ask(time.monotonic() if since is None else since)

    def lists_origin(self, origin: str) -> bool:
        """Return whether any enabled tenant listed that origin when the versions were last asked for."""
        return origin in self._all_origins

    def origins_of(self, tenant_id: str) -> Sequence[str]:
        """Return the origins that the tenant listed when the versions were last asked for."""
        return self._origins.get(tenant_id, ())

    def _ask(self, since: float) -> None:
        called_at = time.monotonic()
        with self._lock:
            if self._asked_at >= since:  # another thread asked while this one waited
                return
            if self._failure is not None and self._failed_at >= called_at:  # or tried to, and waited for that
                raise copy.copy(self._failure) from self._failure.__cause__
            asked_at = time.monotonic()
            try:
                rows = list(
                    Tenant.objects.filter(enabled=True).values_list("id", "version", "allowed_origins")
                )
            except Exception as error:
                self._failed_at, self._failure = time.monotonic(), error
                raise
            self._failure = None
            versions = {tenant_id: version for tenant_id, version, _ in rows}
            origins = {tenant_id: listed for tenant_id, _, listed in rows if listed}
            if origins != self._origins:
                self._origins = origins
                self._all_origins = frozenset(origin for listed in origins.values() for origin in listed)
            # A copy, for other threads add what they read meanwhile. What comes too late is read once more.
            self._views = {name: view for name, view in self._views.copy().items() if name in versions}
            self._versions = versions
            self._asked_at = asked_at

    def _read(self, tenant_id: str, reading: Future[TenantSnapshot | None]) -> None:
        """Read the tenant for all who wait for that."""
        try:
            view = read(tenant_id)
            if view is None:
                self._versions.pop(tenant_id, None)
                self._views.pop(tenant_id, None)
            else:
                self._views[tenant_id] = view
                if view.version > self._versions.get(tenant_id, 0):  # a newer one may have been heard of
                    self._versions[tenant_id] = view.version
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait are told
            del self._reading[tenant_id]
            reading.set_exception(error)
        else:
            del self._reading[tenant_id]
            reading.set_result(view)


snapshot = Snapshot()
"""The one of this process."""


def _outcome(reading: Future[TenantSnapshot | None]) -> TenantSnapshot | None:
    error = reading.exception()
    if error is not None:
        # Several threads raise it: to each its own, with its own traceback.
        raise copy.copy(error) from error.__cause__
    return reading.result()
