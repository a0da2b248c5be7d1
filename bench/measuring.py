"""One round of one system: how fast it answers, and what of the machine it takes for that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import psycopg

from bench import machine
from bench.load import Wrong
from bench.systems import Conversations, Running, System

if TYPE_CHECKING:
    from bench.postgresql import PostgreSQL

NEARLY_ALL = 0.9
"""From this share on, something has run out."""


@dataclass(frozen=True, slots=True)
class Started:
    """A system that runs, and the address of its database."""

    system: System
    running: Running
    database: str

    def stored(self) -> int:
        """Return what its tables count."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(self.system.rows).fetchone()  # type: ignore[call-overload]
        return int(row[0])


@dataclass(frozen=True, slots=True)
class Round:
    """What was seen. Latencies are in milliseconds, CPU is in microseconds for each answer.

    `busiest` is the share of one CPU that the busiest process of the server has had, `generator` that of the
    load generator. `idle`, `disk` (idle, but for a disk) and `others` (had by whatever does not belong to the
    benchmark) are shares of the machine.
    """

    answers: int
    seconds: float
    per_second: float
    p50: float
    p99: float
    cpu_server: float
    cpu_postgresql: float
    cpu_generator: float
    busiest: float
    generator: float
    idle: float
    disk: float
    others: float


@dataclass(frozen=True, slots=True)
class _Moment:
    """The seconds of CPU that everything has had by now."""

    server: dict[int, float]
    postgresql: float
    generator: float
    idle: float
    disk: float

    @classmethod
    def now(cls, running: Running, postgresql: PostgreSQL) -> _Moment:
        return cls(
            server=machine.cpu(running.pid),
            postgresql=sum(machine.cpu(postgresql.pid).values()),
            generator=time.process_time(),
            idle=machine.idle(),
            disk=machine.waiting_for_disk(),
        )


def measure(
    started: Started,
    postgresql: PostgreSQL,
    conversations: Conversations,
    *,
    connections: int,
    most: int,
    seconds: float,
    stores: bool,
) -> Round:
    """Hold conversations for so long, or until so many requests are answered.

    Raises `Wrong` at an answer that is not what it should be, or is not stored where it should be; OSError.
    """
    held = conversations(started.running, connections, most)
    stored = started.stored() if stores else 0
    before = _Moment.now(started.running, postgresql)
    taken = started.running.hold(held, seconds)
    after = _Moment.now(started.running, postgresql)
    answers = len(taken.each)
    if stores and (missing := stored + answers - started.stored()) > 0:
        raise Wrong(f"{missing} of {answers} answers are not stored")

    server = sum(after.server.values()) - sum(before.server.values())
    database = after.postgresql - before.postgresql
    generator = after.generator - before.generator
    idle, disk = after.idle - before.idle, after.disk - before.disk
    whole = machine.CPUS * taken.seconds
    each = 1e6 / answers
    return Round(
        answers=answers,
        seconds=taken.seconds,
        per_second=taken.per_second,
        p50=taken.percentile(0.5),
        p99=taken.percentile(0.99),
        cpu_server=server * each,
        cpu_postgresql=database * each,
        cpu_generator=generator * each,
        busiest=max(had - before.server.get(pid, 0.0) for pid, had in after.server.items()) / taken.seconds,
        generator=generator / taken.seconds,
        idle=idle / whole,
        disk=disk / whole,
        others=max(0.0, 1 - (server + database + generator + idle + disk) / whole),
    )


def ran_out(rounds: list[Round]) -> str:
    """Say what kept the system from being faster, by the medians: the first of these that is used up."""
    share = {
        name: median(getattr(one, name) for one in rounds)
        for name in ("idle", "disk", "busiest", "generator", "others")
    }
    if share["idle"] + share["disk"] < 1 - NEARLY_ALL:
        return "the machine's CPU"
    if share["busiest"] > NEARLY_ALL:
        return "its process (one thread at a time)"
    if share["generator"] > NEARLY_ALL:
        return "the load generator"
    if share["disk"] > 1 - NEARLY_ALL:
        return "the disk"
    return "nothing: each client waits for its answer"
