"""A round of one system: throughput, latencies, and use of the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import psycopg

from bench import machine
from bench.load import WrongAnswer
from bench.systems import ConversationFactory, Running, System

if TYPE_CHECKING:
    from bench.postgresql import PostgreSQL

BOTTLENECK_SHARE = 0.9
"""A CPU or process that is busy for this share of a round is a bottleneck."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running system, and the URL of its database."""

    system: System
    running: Running
    database: str

    def stored(self) -> int:
        """Return the number of rows it has stored, by `System.rows`."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(self.system.rows).fetchone()  # type: ignore[call-overload]
        return int(row[0])


@dataclass(frozen=True, slots=True)
class Round:
    """Latencies are in milliseconds, CPU times in microseconds for each response.

    `busiest` is the share of one CPU that the busiest process of the server used, `generator` that of the
    load generator. `idle`, `disk` (waiting for a disk) and `others` (processes outside the benchmark) are
    shares of the machine.
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
class _CPUTimes:
    """CPU times in seconds."""

    server: dict[int, float]
    postgresql: float
    generator: float
    idle: float
    disk: float

    @classmethod
    def now(cls, running: Running, postgresql: PostgreSQL) -> _CPUTimes:
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
    conversations: ConversationFactory,
    *,
    connections: int,
    max_requests: int,
    seconds: float,
    stores: bool,
) -> Round:
    """Run conversations for `seconds`, or until there are `max_requests` responses.

    Raises `WrongAnswer` for a wrong response, or if `stores` for one that is not stored; OSError.
    """
    held = conversations(started.running, connections, max_requests)
    stored = started.stored() if stores else 0
    before = _CPUTimes.now(started.running, postgresql)
    taken = started.running.hold(held, seconds)
    after = _CPUTimes.now(started.running, postgresql)
    answers = len(taken.latencies)
    if stores and (missing := stored + answers - started.stored()) > 0:
        raise WrongAnswer(f"{missing} of {answers} responses are not stored")

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


def find_bottleneck(rounds: list[Round]) -> str:
    """Return what limits the throughput, by the medians: the first of these that is used up."""
    share = {
        name: median(getattr(one, name) for one in rounds)
        for name in ("idle", "disk", "busiest", "generator", "others")
    }
    if share["idle"] + share["disk"] < 1 - BOTTLENECK_SHARE:
        return "the machine's CPU"
    if share["busiest"] > BOTTLENECK_SHARE:
        return "its process (one thread at a time)"
    if share["generator"] > BOTTLENECK_SHARE:
        return "the load generator"
    if share["disk"] > 1 - BOTTLENECK_SHARE:
        return "the disk"
    return "nothing: each client waits for its answer"
