"""Rounds of load: throughput and latencies of a system, and its use of the machine and the database."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import psycopg

from bench import load, machine

if TYPE_CHECKING:
    from bench.postgresql import PostgreSQL


@dataclass(frozen=True, slots=True)
class Round:
    """Latencies in milliseconds, CPU times in microseconds and WAL in bytes for each response."""

    per_second: float
    p50: float
    p99: float
    server: float
    postgresql: float
    load: float
    wal: float
    idle: float  # as a share of the CPU of the machine

    @property
    def cpu(self) -> float:
        """CPU time of the server and PostgreSQL."""
        return self.server + self.postgresql

    def __str__(self) -> str:
        return (
            f"{self.per_second:6.0f}/s  p50 {self.p50:6.1f} ms  p99 {self.p99:6.1f} ms  "
            f"CPU µs: server {self.server:4.0f}, PostgreSQL {self.postgresql:4.0f}, load {self.load:3.0f}  "
            f"WAL {self.wal:6.0f} bytes  idle {self.idle:4.0%}"
        )


def median(rounds: Collection[Round]) -> Round:
    """Return the median of each figure."""
    return Round(
        **{each.name: statistics.median(getattr(r, each.name) for r in rounds) for each in fields(Round)}
    )


def ratio(mine: Sequence[Any], other: Sequence[Any], figure: str) -> float:
    """Return the median of the ratios of each round: a disturbance of the machine affects both."""
    return statistics.median(
        getattr(one, figure) / getattr(beside, figure) for one, beside in zip(mine, other, strict=True)
    )


def measure(
    database: PostgreSQL,
    servers: Sequence[int],
    ports: int | Sequence[int],
    conversations: Sequence[load.Conversation],
    seconds: float,
    *,
    excluded: Collection[int] = (),
) -> tuple[Round, load.LoadResult]:
    """Run the conversations, and return the figures and latencies.

    `servers` are the first processes of the servers. `excluded` are processes of PostgreSQL that do not work
    for them.
    """
    at, posts = wal_position(database), machine.cpu(database.pid)
    before = [machine.cpu(pid) for pid in servers]
    mine, idle = time.process_time(), machine.idle()
    taken = load.run(ports, conversations, seconds)
    idle, mine = machine.idle() - idle, time.process_time() - mine
    after, posts_after = [machine.cpu(pid) for pid in servers], machine.cpu(database.pid)
    answers = len(taken.latencies)
    micro = 1e6 / answers
    return Round(
        per_second=taken.per_second,
        p50=taken.percentile(0.5),
        p99=taken.percentile(0.99),
        server=sum(map(cpu_used, before, after)) * micro,
        postgresql=cpu_used(posts, {pid: had for pid, had in posts_after.items() if pid not in excluded})
        * micro,
        load=mine * micro,
        wal=(wal_position(database) - at) / answers,
        idle=idle / taken.seconds / machine.CPUS,
    ), taken


def cpu_used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Return the CPU time in seconds between two measurements, of processes that have not exited."""
    return sum(had - before.get(pid, 0.0) for pid, had in after.items())


def wal_position(database: PostgreSQL) -> int:
    """Return the position in the WAL in bytes."""
    with psycopg.connect(database.url("postgres")) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
        return int(row[0]) if row else 0
