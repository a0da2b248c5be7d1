"""`make bench`: compare AGS with an asynchronous floor, a release of AGS, and other authorization servers.

All do the same work on the same machine, in turns, for several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench import machine, postgresql, summary
from bench.load import WrongAnswer
from bench.measuring import Round, Started, measure
from bench.plot import draw
from bench.systems import ROOT, Missing, System
from bench.systems.ags import AGS
from bench.systems.floor import FLOOR
from bench.systems.glewlwyd import GLEWLWYD
from bench.systems.oauth_toolkit import OAUTH_TOOLKIT
from bench.systems.oidc_provider import OIDC_PROVIDER
from bench.systems.release import RELEASE

SYSTEMS = (FLOOR, AGS, RELEASE, OIDC_PROVIDER, GLEWLWYD, OAUTH_TOOLKIT)

RESULTS, PLOT = ROOT / "bench" / "results.json", ROOT / "docs" / "performance.svg"

WARM_UP, WARM_UP_SECONDS = 10_000, 15.0
"""Requests and seconds of the warm-up, which is not measured. V8 compiles meanwhile."""

PREPARED_FACTOR = 1.5
"""Requests that are prepared for a round, as a multiple of those answered in the best round so far."""


def main() -> int:
    """Measure, print and write. Return 1 if a response of any system was wrong or not stored."""
    options = _options()
    everything = not options.work and not options.system and not options.connections
    is_optimised = machine.interpreter()["enable-optimizations"] is not False  # None: unknown
    print(_interpreter(), flush=True)
    if everything and not is_optimised:
        print("This run writes no results, because this Python is built without optimizations.", flush=True)
    with postgresql.server() as server, ExitStack() as running:
        started, missing = _start(server, options, running)
        work: dict[str, dict[int, dict[str, Any]]] = {}
        wrong: list[str] = []
        for kind in [name for name in AGS.work if not options.work or name in options.work]:
            participants = [one for one in started if kind in one.system.work]
            work[kind] = {}
            for connections in options.connections or summary.connections(kind):
                rounds = _compare(kind, participants, server, options, wrong, connections=connections)
                figures = work[kind][connections] = summary.summary(rounds)
                print(f"\n{summary.table(summary.heading(kind, connections), figures)}\n", flush=True)
                if disturbance := summary.find_disturbance(figures):
                    print(f"Other processes used the CPU: {disturbance}.\n", flush=True)
        results = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "versions": {
                "PostgreSQL": _version(server),
                **{one.system.name: one.system.version() for one in started},
            },
            "options": {name: getattr(options, name) for name in ("rounds", "seconds")},
            "missing": missing,
            "wrong": wrong,
            "targets": summary.check_targets(work),
            "work": work,
        }
    for target in results["targets"]:
        print(summary.describe_target(target))
    for line in [*(f"left out: {name}: {why}" for name, why in missing.items()), *wrong]:
        print(line)
    if everything and is_optimised:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        draw(work["getSessionToken"][summary.CONNECTIONS], _caption(results), PLOT)
        print(f"Written: {RESULTS.relative_to(ROOT)}, {PLOT.relative_to(ROOT)}")
    unmet = options.demand and not all(target["met"] for target in results["targets"])
    return 1 if wrong or unmet else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a round (5)")
    parser.add_argument(
        "--connections",
        type=int,
        action="append",
        help="only with this number, for each kind of work; repeatable",
    )
    parser.add_argument(
        "--work", action="append", choices=list(AGS.work), help="only this kind of work; repeatable"
    )
    parser.add_argument(
        "--system",
        action="append",
        choices=[one.name for one in SYSTEMS],
        help="only this system; repeatable",
    )
    parser.add_argument("--demand", action="store_true", help="fail unless AGS meets every target")
    return parser.parse_args()


def _start(
    server: postgresql.PostgreSQL, options: argparse.Namespace, running: ExitStack
) -> tuple[list[Started], dict[str, str]]:
    """Start all systems; return those that run, and for each other one what is missing."""
    started: list[Started] = []
    missing: dict[str, str] = {}
    for system in SYSTEMS:
        if options.system and system.name not in options.system:
            continue
        if options.work and not set(options.work) & set(system.work):
            continue
        print(f"starting {system.name}", flush=True)
        database = server.create(system.name.replace(" ", "-"))
        try:
            started.append(Started(system, running.enter_context(system.start(database)), database))
        except Missing as why:
            missing[system.name] = str(why)
            print(f"left out: {system.name}: {why}", flush=True)
    return started, missing


def _compare(
    kind: str,
    participants: list[Started],
    server: postgresql.PostgreSQL,
    options: argparse.Namespace,
    wrong: list[str],
    *,
    connections: int,
) -> dict[str, list[Round]]:
    """Return the rounds of each system without wrong responses; append a line on each other to `wrong`."""
    rounds: dict[str, list[Round]] = {one.system.name: [] for one in participants}
    best: dict[str, float] = {}
    for number in range(options.rounds + 1):  # the first is the warm-up
        for one in participants:
            system: System = one.system
            if system.name not in rounds:
                continue
            warm = number > 0
            try:
                seen = measure(
                    one,
                    server,
                    system.work[kind],
                    connections=connections,
                    max_requests=int(best[system.name] * options.seconds * PREPARED_FACTOR)
                    if warm
                    else WARM_UP,
                    seconds=options.seconds if warm else WARM_UP_SECONDS,
                    stores=kind in summary.STORING,
                )
            except (WrongAnswer, OSError) as problem:
                wrong.append(f"WRONG: {system.name}, {kind}: {problem}")
                print(wrong[-1], flush=True)
                del rounds[system.name]
                continue
            best[system.name] = max(best.get(system.name, 0.0), seen.per_second)
            print(_line(f"{kind} {connections:2}", system.name, number, options.rounds, seen), flush=True)
            if warm:
                rounds[system.name].append(seen)
    return rounds


def _line(work: str, name: str, number: int, of: int, seen: Round) -> str:
    which = f"round {number}/{of}" if number else "warm-up"
    return (
        f"{work:25} {which:10} {name:20} {seen.per_second:7,.0f}/s  "
        f"p50 {seen.p50:6.1f}  p99 {seen.p99:6.1f} ms  "
        f"CPU µs: server {seen.cpu_server:5.0f}, PostgreSQL {seen.cpu_postgresql:4.0f}, "
        f"generator {seen.cpu_generator:3.0f}  idle {seen.idle:4.0%}, others {seen.others:4.0%}"
    )


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": ", ".join(sorted(models)) or platform.machine(),
        "cores": machine.CPUS,
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "interpreter": machine.interpreter(),
    }


def _interpreter() -> str:
    python, said = (
        machine.interpreter(),
        {True: "yes", False: "no", None: "unknown, CONFIG_ARGS is that of another executable"},
    )
    options = "".join(f"\n  --{name}: {said[python[name]]}" for name in machine.BUILD_OPTIONS)
    return f"Python {python['version']}, CONFIG_ARGS: {python['config_args']}{options}"


def _version(server: postgresql.PostgreSQL) -> str:
    with psycopg.connect(server.url("postgres")) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]) if row else ""


def _caption(results: dict[str, Any]) -> str:
    machine, rounds = results["machine"], results["options"]["rounds"]
    return (
        f"{results['date'][:10]}; {machine['cpu']}, {machine['cores']} cores, with PostgreSQL and the load "
        f"generator on them; {summary.CONNECTIONS} connections; medians of {rounds} rounds"
    )


if __name__ == "__main__":
    sys.exit(main())
