"""The purge that runs by itself: the processes of all servers take turns, under one lease."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from django.db import Error, connections

from ags.database import run_with_orm
from ags.database.background import use_background_connection
from ags.database.tasks import PerEventLoop
from ags.operations.lease import LeaseHolder, LeaseNotAvailable, read_lease
from ags.operations.purge import BATCH_SIZE, Batches
from ags.operations.purge_counts import INTERVAL, LEASE, OVERDUE, SERVER, read_purge_status
from ags.operations.row_counts import count_rows_if_due

POLL_INTERVAL = 15.0
"""Seconds after which a process looks whether a purge is due: it reads one row."""

TURN = 10.0
"""Seconds after which a process ends its turn, if each kind of each tenant has had a batch."""

TURN_GAP = 1.0
"""Seconds after a turn that has left rows: another process, or the command, can take the next one."""

PATIENCE = 300.0
"""Seconds for which a process sees an overdue purge before it warns: all servers may have just started."""

WARNING_INTERVAL = 3600.0

CLOSE_TIMEOUT = 2.0

log = logging.getLogger(__name__)


class AutomaticPurge:
    """The task of a process, for one event loop."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._closing = asyncio.Event()
        self._is_failing = False
        self._overdue_since: float | None = None
        self._warned_at: float | None = None
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End after the current batch, or in 2 seconds at most: then PostgreSQL rolls it back."""
        self._stop.set()
        self._closing.set()
        completed, _ = await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT)
        if not completed:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _run(self) -> None:
        await self._wait(random.uniform(0, POLL_INTERVAL))  # noqa: S311 - spreads the processes
        while not self._closing.is_set():
            is_finished = await self._take_turn_if_due()
            await self._wait(POLL_INTERVAL if is_finished else TURN_GAP)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def _take_turn_if_due(self) -> bool:
        """Return False if there are more rows to delete. Raises nothing."""
        try:
            lease = LeaseHolder(LEASE, SERVER)
            # On the connection that this process has anyway. Only the holder of the lease opens another one.
            is_acquired, is_overdue = await run_with_orm(_ask, lease)
            self._warn_if_overdue(is_overdue)
            is_finished = not is_acquired or await _run_in_daemon_thread(lambda: take_turn(lease, self._stop))
        except Exception as error:  # noqa: BLE001 - the task must continue
            if not self._is_failing:
                log.warning("purge failed: %s", type(error).__name__)
            self._is_failing = True
            return True
        if is_acquired:
            self._is_failing = False
        return is_finished

    def _warn_if_overdue(self, is_overdue: bool) -> None:
        now = time.monotonic()
        if not is_overdue:
            self._overdue_since = None
        elif self._overdue_since is None:
            self._overdue_since = now
        elif now - self._overdue_since >= PATIENCE and (
            self._warned_at is None or now - self._warned_at >= WARNING_INTERVAL
        ):
            self._warned_at = now
            log.warning("no purge has succeeded for an hour")


def _ask(lease: LeaseHolder) -> tuple[bool, bool]:
    """Acquire the lease if a purge is due. Return whether it was acquired, and whether it is overdue."""
    state = read_lease(LEASE)
    return lease.acquire_if_due(state), state is not None and state.due_for >= OVERDUE


def take_turn(lease: LeaseHolder, stop: threading.Event) -> bool:
    """Purge for one turn, and release the lease. Return False if there are more rows to delete.

    Uses a connection of its own, which it closes. Raises Django's database errors, and LeaseNotAvailable if
    it was blocked for longer than its lease.
    """
    use_background_connection()
    try:
        try:
            is_finished, error = _purge(lease, stop)
        finally:
            lease.release()
        if not stop.is_set():
            _count_rows(stop)
        if error is not None:
            raise error
    finally:
        with suppress(Error):
            connections.close_all()
    return is_finished


def _count_rows(stop: threading.Event) -> None:
    try:
        is_counted = count_rows_if_due(stop.wait)
    except (Error, LeaseNotAvailable) as error:
        log.warning("expired rows not counted: %s", type(error).__name__)
        return
    if is_counted:
        _warn_of_dead_rows()


def _purge(lease: LeaseHolder, stop: threading.Event) -> tuple[bool, Error | None]:
    """Return whether there are no more rows to delete, and the error of a kind that was skipped."""
    ends_at = time.monotonic() + TURN
    batches = Batches(lease, BATCH_SIZE, stop.wait, in_background=True)
    is_finished = True
    for _ in batches.delete():
        if stop.is_set() or (batches.rounds and time.monotonic() >= ends_at):
            is_finished = False
            break
    if batches.error is None and not stop.is_set():
        lease.succeed(INTERVAL if is_finished else INTERVAL * 0)
    return is_finished, batches.error


def _warn_of_dead_rows() -> None:
    for kind, status in read_purge_status().kinds.items():
        if status.accumulates:
            log.warning(
                "expired rows accumulate", extra={"kind": kind, "dead": status.dead, "alive": status.alive}
            )


async def _run_in_daemon_thread(function: Callable[[], bool]) -> bool:
    """Return its result. The exit of the process does not wait for the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def finish(result: bool, error: Exception | None) -> None:
        if future.done():  # cancelled at shutdown
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result, raised = True, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - raised in the task
            raised = error
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(finish, result, raised)

    threading.Thread(target=run, name="purge", daemon=True).start()
    return await future


automatic_purges = PerEventLoop(AutomaticPurge)
