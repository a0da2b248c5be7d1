"""Each process reports the version of the configuration that it serves, and follows the changes when idle."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from ags import __version__
from ags.database import run_with_orm
from ags.database.tasks import PerEventLoop, PeriodicTask
from ags.sessions.models import Process
from tenants.models import read_configuration_version
from tenants.snapshot import VERSIONS_MAX_AGE, snapshot

REPORT_INTERVAL = 10.0
"""Seconds between two reports of a process that serves the same version."""

LIFETIME = timedelta(seconds=30)
"""Time without a report after which a process is not counted."""

MAX_PROCESSES = 1000
"""Processes that are counted, and rows that a report deletes."""

CLOSE_TIMEOUT = 2.0

log = logging.getLogger(__name__)


class ProcessReporter:
    """Reads the versions of the tenants when they are stale, and reports the process, for one event loop."""

    def __init__(self) -> None:
        self._id = uuid.uuid4()
        self._reported_version: int | None = None
        self._reported_at = float("-inf")
        self._is_failing = False
        self._task = PeriodicTask(self._report, VERSIONS_MAX_AGE)

    async def close(self) -> None:
        """Delete the row of the process, in 2 seconds at most; another process deletes it otherwise."""
        await self._task.close(CLOSE_TIMEOUT)

    async def _report(self) -> None:
        """Raises nothing."""
        try:
            await run_with_orm(self._remove if self._task.is_closing else self._follow)
            self._is_failing = False
        except Exception as error:  # noqa: BLE001 - the task must continue
            if not self._is_failing:
                log.warning("process not reported: %s", type(error).__name__)
            self._is_failing = True

    def _follow(self) -> None:
        snapshot.refresh_if_stale()
        version, now = snapshot.configuration_version, time.monotonic()
        if version != self._reported_version or now - self._reported_at >= REPORT_INTERVAL:
            report(self._id, version)
            self._reported_version, self._reported_at = version, now

    def _remove(self) -> None:
        with transaction.atomic():
            _limit_lock_wait()
            Process.objects.filter(pk=self._id).delete()


def report(process: uuid.UUID, version: int) -> None:
    """Store the report of this process, and delete the rows of crashed ones. Raises database errors."""
    row = Process(
        id=process,
        host=socket.gethostname()[:128],
        process_id=os.getpid(),
        release=__version__[:32],
        configuration_version=version,
        reported_at=Now(),
    )
    reported = ["configuration_version", "reported_at"]
    with transaction.atomic():
        _limit_lock_wait()
        Process.objects.bulk_create(
            [row], update_conflicts=True, unique_fields=["id"], update_fields=reported
        )
        crashed = Process.objects.filter(reported_at__lte=Now() - LIFETIME)
        if connection.features.has_select_for_update_skip_locked:
            crashed = crashed.select_for_update(skip_locked=True)
        ids = list(crashed.values_list("pk", flat=True)[:MAX_PROCESSES])
        if ids:
            Process.objects.filter(pk__in=ids).delete()


def _limit_lock_wait() -> None:
    if connection.vendor == "postgresql":
        # Requests need this connection to read the configuration: it must not wait long for a lock.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '100ms'")


@dataclass(frozen=True, slots=True)
class Propagation:
    """The latest version of the configuration, and the running processes, at most `MAX_PROCESSES`."""

    version: int
    processes: list[Process]

    @property
    def behind(self) -> list[Process]:
        """Return the processes that do not serve the latest version yet."""
        return [each for each in self.processes if each.configuration_version != self.version]


def running_processes() -> QuerySet[Process]:
    """Return the processes that have reported within `LIFETIME`."""
    return Process.objects.filter(reported_at__gt=Now() - LIFETIME)


def read_propagation() -> Propagation:
    """Return which processes serve the latest version. Raises Django's database errors."""
    # The processes first: none of these reports can be newer than the version that is read next.
    processes = list(running_processes().order_by("host", "process_id", "pk")[:MAX_PROCESSES])
    return Propagation(read_configuration_version(), processes)


def served_version() -> int:
    """Return the version of the configuration that this process serves; 0 if it has read none."""
    return snapshot.configuration_version


process_reporters = PerEventLoop(ProcessReporter)
