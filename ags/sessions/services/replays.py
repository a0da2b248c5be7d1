"""Replayed proofs: their `jti` was used before. `issue` finds them, by unique constraints of SessionToken."""

from operator import itemgetter
from typing import Any

from ags.sessions.sql.functions import Row
from providers.contract import FailureReason, VerificationFailed

MAX_KNOWN_REPLAYS = 1024
"""Replayed proofs that a process rejects without the database, the latest ones; 1 MiB at most."""

known_replays: dict[tuple[Any, ...], None] = {}
"""Proofs that the database has rejected as replayed. It rejects them for as long as they verify."""

_replay_key = itemgetter("tenant", "service", "key", "jti")


def reject_known_replay(row: Row) -> None:
    """Raise `VerificationFailed(REPLAYED)` for a proof that the database has rejected as replayed.

    This makes a replay cheaper than a valid proof. The database decides on all other proofs.
    """
    if _replay_key(row) in known_replays:
        raise VerificationFailed(FailureReason.REPLAYED, "jti")


def remember_replay(row: Row) -> None:
    known_replays[_replay_key(row)] = None
    if len(known_replays) > MAX_KNOWN_REPLAYS:
        known_replays.pop(next(iter(known_replays)), None)  # another thread of runserver may have removed it
