"""The database interface on asynchronous connections to PostgreSQL."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import psycopg
from django.db import utils

from ags.database.engine.base import bounded_connections
from ags.database.errors import translate_errors
from ags.database.lane import Lane, Transaction
from ags.database.outage import Outage
from ags.database.threads import CONFIGURATION, acquire, run_in_thread

READS, INSERTS, UPDATES = "reads", "inserts", "updates"
"""Kinds of statements. Statements of one kind run one after another.

UPDATES may wait for row locks; INSERTS wait only for a concurrent insert of the same key.
"""

_T = TypeVar("_T")


class PostgreSQL:
    """One lane (connection) for each kind of statement. Transactions use the lane for UPDATES."""

    max_batch_size = 32
    """Maximum number of rows that one statement writes for several requests."""

    def __init__(self, lane_type: type[Lane] = Lane) -> None:
        self._outage = Outage()
        self._lanes = {
            READS: lane_type(self._outage, only_reads=True),
            INSERTS: lane_type(self._outage),
            UPDATES: lane_type(self._outage),
        }
        self._orm_semaphore = asyncio.Semaphore()

    @property
    def is_available(self) -> bool:
        """False while statements fail without being executed."""
        return not self._outage.is_active

    @property
    def connections(self) -> int:
        """The number of open connections, with those of Django in the threads of this process."""
        return sum(lane.is_connected for lane in self._lanes.values()) + len(bounded_connections)

    @property
    def outages(self) -> tuple[int, float]:
        """The number of outages, and their duration in seconds."""
        return self._outage.number, self._outage.seconds

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute and commit a statement; return its rows. Raises Django's database errors."""
        return await self._lanes[kind].fetch_all(statement, params)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commit at the end of the block, roll back on an exception. Raises Django's database errors."""
        return self._lanes[UPDATES].transaction()

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function that uses the ORM in a thread. Raises OperationalError during an outage.

        Functions run one after another; those that are waiting when an outage begins fail, too.
        """
        await acquire(self._orm_semaphore)
        try:
            with translate_errors():
                self._outage.raise_if_active()
            return await run_in_thread(function, *args, pool=CONFIGURATION)
        except (utils.OperationalError, utils.InterfaceError) as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.Error) and cause.sqlstate is None:  # no response from PostgreSQL
                self._outage.begin(cause)
            raise
        finally:
            self._orm_semaphore.release()

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
        await self._outage.close()
