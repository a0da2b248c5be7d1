"""The rows that the purge has deleted, and must still delete. All processes read them in the database."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from ags.operations.lease import read_lease
from ags.sessions.models import PurgeCount

LEASE = "purge"

SERVER = "server process"
"""The kind of process that purges by itself, as the lease names it. Its turns are short."""

INTERVAL = timedelta(minutes=1)
"""After a purge has deleted all expired rows, the next one is due."""

OVERDUE = timedelta(hours=1)
"""For how long a purge may be due before there is a warning."""

MIN_DEAD = 10_000
"""Dead rows of a kind without a warning: they are deleted in seconds."""

MAX_RATIO = 2
"""Dead rows for each living one without a warning."""


@dataclass(frozen=True, slots=True)
class KindStatus:
    """Rows of a kind. `dead`: those that can be purged now. `alive`: the other rows of their table.

    `purged`: since the installation of this release. `dead` and `alive` are None until they were counted.
    """

    purged: int
    dead: int | None
    alive: int | None

    @property
    def accumulates(self) -> bool:
        """Return True if there are too many dead rows."""
        if self.dead is None or self.alive is None:
            return False
        return self.dead >= MIN_DEAD and self.dead > MAX_RATIO * self.alive


@dataclass(frozen=True, slots=True)
class PurgeStatus:
    """`succeeded_at`: None if no purge has succeeded. `is_overdue`: none has for `OVERDUE`."""

    succeeded_at: datetime | None
    is_overdue: bool
    kinds: dict[str, KindStatus]


def read_purge_status() -> PurgeStatus:
    """Read what processes have stored: two statements. Raises Django's database errors."""
    state = read_lease(LEASE)
    return PurgeStatus(
        None if state is None else state.succeeded_at,
        state is not None and state.due_for >= OVERDUE,
        {
            row.kind: KindStatus(row.purged, row.dead, row.alive)
            for row in PurgeCount.objects.order_by("kind")
        },
    )


def add_purged(kind: str, number: int) -> None:
    """Add to the number of purged rows, in the transaction that deletes them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ags_sessions_purgecount (kind, purged) VALUES (%s, %s)"
            " ON CONFLICT (kind) DO UPDATE SET purged = ags_sessions_purgecount.purged + excluded.purged",
            [kind, number],
        )
