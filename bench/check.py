"""`make bench-check`: no request of the hot paths takes more CPU time than it did, measured by the floor's.

AGS and the floor answer in this process, in short turns, and the ratio of their cheapest requests is compared
with the committed one. Wall time would tell of the machine. CPU time tells of it, too, as soon as a request
waits: whoever has the CPU meanwhile leaves cold caches behind. So this process and PostgreSQL share one CPU,
and nothing waits for the disk: then it is PostgreSQL that has it, on a busy machine as on a quiet one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench import in_process
from bench.in_process import InProcess, Talk
from bench.systems import ags, floor

COMMITTED = Path(__file__).with_suffix(".json")

HOT = tuple(ags.WORK)
MEASURED_BY = {"discovery": "getSessionToken"}
"""The work of the floor that a path is measured by, where it has none of its own."""

MARGIN = 1.15
"""A ratio may be as many times the committed one."""

ATTEMPTS = 3
"""As often is measured what seems to be worse. What is worse, is so each time."""

TURNS, TURN, WARM_UP = 100, 10, 50
"""How many turns each has, of how many requests; and how many requests come before."""

CHEAP = 0.01
"""The share of the requests that nothing has disturbed, even on a busy machine."""


def main() -> int:
    """Measure, and print the table; return 1 if a path has become worse."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="what is measured now is to be compared with")
    write: bool = parser.parse_args().write
    if write:
        with _both() as (bare, full):
            found = [measure(bare, full, HOT) for _ in range(ATTEMPTS)]
        ratios = {path: round(statistics.median(one[path] for one in found), 2) for path in HOT}
        COMMITTED.write_text(json.dumps(ratios, indent=2) + "\n")
        print(table(ratios, ratios))
        return 0
    committed: dict[str, float] = json.loads(COMMITTED.read_text())
    with _both() as (bare, full):
        now = measure(bare, full, HOT)
        for _ in range(ATTEMPTS - 1):
            if suspects := worse(now, committed):
                again = measure(bare, full, suspects)
                now |= {path: min(now[path], ratio) for path, ratio in again.items()}
    print(table(now, committed))
    if better := [path for path in now if path in worse(committed, now)]:
        print(f"Much better: {', '.join(better)}. `python -m bench.check --write` makes it last.")
    if found_worse := worse(now, committed):
        print(
            f"Worse by more than {MARGIN - 1:.0%}: {', '.join(found_worse)}. "
            "If that is meant to be, commit what `python -m bench.check --write` writes."
        )
    return 1 if found_worse else 0


def worse(now: Mapping[str, float], committed: Mapping[str, float]) -> list[str]:
    """Return the paths that cost more than the margin allows; one that was never committed has none."""
    return [path for path, ratio in now.items() if ratio > committed.get(path, 0.0) * MARGIN]


def table(now: Mapping[str, float], committed: Mapping[str, float]) -> str:
    """Return the ratios, side by side."""
    lines = [f"{'CPU time of AGS / of the floor':32} {'now':>6} {'committed':>10} {'change':>8}"]
    for path, ratio in now.items():
        before = committed.get(path)
        beside = "" if before is None else f"{before:10.2f} {ratio / before - 1:+8.0%}"
        lines.append(f"{path:32} {ratio:6.2f} {beside}")
    return "\n".join(lines)


def measure(bare: InProcess, full: InProcess, paths: Collection[str]) -> dict[str, float]:
    """Return what a request costs AGS, for each path, in requests of the floor."""
    number = WARM_UP + TURNS * TURN
    talks = {
        path: (
            Talk(bare.application, *ags.WORK[MEASURED_BY.get(path, path)](bare, 1, number)),
            Talk(full.application, *ags.WORK[path](full, 1, number)),
        )
        for path in paths
    }
    for talk in (talk for pair in talks.values() for talk in pair):
        for _ in range(WARM_UP):
            talk.spend()
    spent: dict[str, tuple[list[float], list[float]]] = {path: ([], []) for path in paths}
    gc.collect()
    gc.freeze()
    for _ in range(TURNS):
        for path, pair in talks.items():
            for talk, seconds in zip(pair, spent[path], strict=True):
                seconds += [talk.spend() for _ in range(TURN)]
    return {path: _cheap(mine) / _cheap(floors) for path, (floors, mine) in spent.items()}


def _cheap(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * CHEAP)]


@contextmanager
def _both() -> Iterator[tuple[InProcess, InProcess]]:
    """Yield the floor and AGS, in this process."""
    # Imported, it warns where nobody has logged in; to the tests, which import this file, that is an error.
    from bench import postgresql

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # and PostgreSQL, which inherits it
    with postgresql.server() as server:
        databases = {name: server.create(name) for name in ("floor", "ags")}
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = 'off'")
            connection.execute("SELECT pg_reload_conf()")
        settings = ags.environment(databases["ags"], in_process.PORT)
        ags.prepare(settings)
        bare = in_process.floor(floor.environment(databases["floor"]))
        with in_process.log_thrown_away():
            yield bare, in_process.ags(settings)


if __name__ == "__main__":
    sys.exit(main())
