"""Deletion of expired rows in small batches."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db import Error, connection, transaction
from django.db.models import QuerySet

from ags.database.background import limit_statements
from ags.operations.expired import delete_unused_accounts, expired_querysets
from ags.operations.lease import LeaseHolder
from ags.operations.purge_counts import INTERVAL, LEASE, add_purged
from ags.sessions.models import Device

ACCOUNTS = "unused accounts"
"""The kind of accounts that are deleted with their last device."""

BATCH_SIZE = 100
"""Rows that one statement deletes: few enough that no request waits for it."""

PAUSE_FACTOR = 6.0
"""The pause after a batch, as a multiple of its duration. Leaves most of the CPU and the disk to requests."""

MAX_PAUSE = 2.0
"""Seconds: a batch may have taken long only because it waited for a lock."""


def purge(batch_size: int = BATCH_SIZE) -> Iterator[tuple[str, int]]:
    """Delete expired rows. After each batch, yield the kind of rows and how many were deleted.

    Raises LeaseNotAvailable if another purge is running: before anything is deleted, or when this one was
    blocked for longer than its lease.
    """
    with LeaseHolder(LEASE) as lease:
        yield from Batches(lease, batch_size, time.sleep).delete()
        lease.succeed(INTERVAL)


class Batches:
    """Deletes all expired rows. The kinds take turns, because one may grow as fast as it is purged.

    `in_background`: in a process that serves requests. Each statement is limited, each batch is followed by a
    pause, and if one fails, the other kinds are purged nevertheless.
    """

    def __init__(
        self,
        lease: LeaseHolder,
        batch_size: int,
        pause: Callable[[float], object],
        *,
        in_background: bool = False,
    ) -> None:
        self._lease = lease
        self._batch_size = batch_size
        self._pause = pause
        self._in_background = in_background
        self.rounds = 0
        """How often each kind has had its turn."""
        self.error: Error | None = None
        """The last one, in the background."""

    def delete(self) -> Iterator[tuple[str, int]]:
        expired = list(expired_querysets())
        remaining = {number: queryset for number, (_, queryset) in enumerate(expired)}
        has_deleted = False
        while remaining:
            for number, queryset in list(remaining.items()):
                kind, all_expired = expired[number]
                self._lease.renew(has_succeeded=has_deleted and self.error is None)
                started_at = time.monotonic()
                try:
                    rows, deleted, accounts = self._delete_batch(kind, queryset, all_expired)
                except Error as error:
                    self._skip_or_raise(error)
                    del remaining[number]
                    continue
                duration = time.monotonic() - started_at
                has_deleted = True
                yield kind, deleted
                if accounts:
                    yield ACCOUNTS, accounts
                is_last = len(rows) < self._batch_size
                if is_last:
                    del remaining[number]
                elif connection.vendor == "postgresql":
                    # Skip the index entries of deleted rows, which stay until VACUUM removes them.
                    (order,) = queryset.query.order_by
                    remaining[number] = all_expired.filter(**{f"{order}__gte": rows[-1][1]})
                if not is_last or self._in_background:
                    self._pause(min(PAUSE_FACTOR * duration, MAX_PAUSE))
            self.rounds += 1

    def _delete_batch(
        self, kind: str, queryset: QuerySet[Any], all_expired: QuerySet[Any]
    ) -> tuple[list[tuple[Any, ...]], int, int]:
        """Return the primary keys with their order, and the number of rows and accounts that were deleted."""
        (order,) = queryset.query.order_by
        columns = ("pk", order, "account") if queryset.model is Device else ("pk", order)
        limits: AbstractContextManager[None] = limit_statements() if self._in_background else nullcontext()
        with limits:
            rows = list(queryset.values_list(*columns)[: self._batch_size])
            if not rows:
                return rows, 0, 0
            with transaction.atomic():
                # By primary key, committed at once. The condition is repeated, because a failed login may
                # have been updated since the SELECT.
                deleted, _ = all_expired.filter(pk__in=[pk for pk, *_ in rows]).delete()
                add_purged(kind, deleted)
                accounts = delete_unused_accounts({row[2] for row in rows}) if queryset.model is Device else 0
                if accounts:
                    add_purged(ACCOUNTS, accounts)
        return rows, deleted, accounts

    def _skip_or_raise(self, error: Error) -> None:
        """Raise the error, unless only this statement has failed, e.g. because a row is locked."""
        if not self._in_background:
            raise error
        connection.close_if_unusable_or_obsolete()
        if connection.connection is None:
            raise error
        self.error = error
