"""`python -m bench.growth`: compare the speed of AGS with large and with small tables."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from argparse import Namespace
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import load, machine, postgresql, rounds
from bench.growth.cases import CASES, CONNECTIONS, Case, warm_up
from bench.growth.side import CompanionEnded, Side, measure_start, prepare_database, serve
from bench.head_end import HeadEnd, conversations, paced, requests
from bench.postgresql import PostgreSQL
from bench.systems import ROOT

BOUND = 0.15
"""The share by which throughput and p99 may be worse."""

READY_WITHIN, MEMORY_WITHIN = 3.0, 120e6
SAMPLED_EVERY = 30.0

FIGURES = (
    ("per_second", "session tokens per second, at least 0.85"),
    ("p50", "p50, ms"),
    ("p99", "p99, ms, at most 1.15"),
    ("server", "CPU time of the server for each, µs"),
    ("postgresql", "CPU time of PostgreSQL for each, µs"),
    ("wal", "WAL for each, bytes"),
)

RESULT = ROOT / "bench" / "growth.json"


def main() -> None:
    """Compare, print and write."""
    options = _options()
    result: dict[str, Any] = {"options": {k: v for k, v in vars(options).items() if k != "result"}}
    with postgresql.server() as database, prepare_database(database, "small") as (address, settings):
        result["machine"] = {"cpus": machine.CPUS, "postgresql": database.version()}
        result["ready"] = [measure_start(address, settings) for _ in range(3)]
        print("ready after", ", ".join(f"{seconds:.2f} s" for seconds in result["ready"]), flush=True)
        with serve("small", address, settings) as small:
            memory = result["memory"] = {"ready": small.memory()}
            warm_up(small)
            result["cases"] = []
            for name in options.only:
                with closing(CASES[name](database, options)) as cases:
                    for case in cases:
                        result["cases"].append(_compare(database, small, case, options))
            memory["load"] = small.memory()
            if options.hour:
                memory["hour"] = _memory_over_time(small, options)
    _show(result)
    options.result.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Written to {options.result}")


def _options() -> Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds of each side of a case")
    add("--seconds", type=float, default=5.0, help="duration of a round")
    add("--dead", type=int, default=10_000_000, help="rows that a purge deletes")
    add("--living", type=int, default=1_000_000, help="rows that a purge keeps")
    add("--tenants", type=int, default=1000)
    add("--services", type=int, default=5, help="services of each tenant")
    add("--keys", type=int, default=10, help="keys of each tenant")
    add("--many-keys", type=int, default=200, help="keys of the tenant with many keys")
    add(
        "--hour",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="measure the memory for this time, such as 3600",
    )
    add("--rate", type=float, default=200.0, help="requests per second meanwhile")
    add("--only", nargs="*", choices=CASES, default=list(CASES), help="measure these cases only")
    add("--result", type=Path, default=RESULT)
    return parser.parse_args()


def _compare(database: PostgreSQL, small: Side, case: Case, options: Namespace) -> dict[str, Any]:
    """Measure both sides in turn, A B B A, so that a drift of the machine affects both."""
    print(case.name, flush=True)
    small.sql("TRUNCATE ags_sessions_sessiontoken")
    baseline = Case.of("baseline", small)
    taken: dict[str, list[rounds.Round]] = {"baseline": [], "grown": []}
    most = 2000.0
    turn = [("baseline", baseline), ("grown", case)]
    for side, current in itertools.islice(itertools.cycle([*turn, *reversed(turn)]), 2 * options.rounds):
        try:
            one = _round(database, current, int(most * options.seconds * 1.5), options.seconds)
        except CompanionEnded as end:
            if not taken[side]:
                raise
            print(f"  {end}: it had too little to do")
            break
        most = max(most, one.per_second)
        taken[side].append(one)
        print(f"  {side:8} {one}", flush=True)
    medians = {side: rounds.median(each) for side, each in taken.items()}
    number = min(
        len(each) for each in taken.values()
    )  # the case may have ended before the second side was measured
    baselines, grown = taken["baseline"][:number], taken["grown"][:number]
    ratios = {name: rounds.ratio(grown, baselines, name) for name, _ in FIGURES}
    flat = ratios["per_second"] >= 1 - BOUND and ratios["p99"] <= 1 + BOUND
    return {
        "case": case.name,
        "flat": flat,
        "ratios": ratios,
        **{side: asdict(each) for side, each in medians.items()},
        "rounds": {side: [asdict(one) for one in each] for side, each in taken.items()},
        "memory": case.side.memory(),
        "told": case.facts,
    }


def _round(database: PostgreSQL, case: Case, number: int, seconds: float) -> rounds.Round:
    running = case.side.running
    held = conversations(case.ready(number), CONNECTIONS)
    with case.during():
        excluded = case.excluded()
        taken, _ = rounds.measure(database, [running.pid], running.port, held, seconds, excluded=excluded)
    return taken


def _memory_over_time(side: Side, options: Namespace) -> dict[str, Any]:
    """Measure the memory under a low load; the slope is that of the second half, in bytes per hour."""
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    while (at := time.monotonic() - began) < options.hour:
        samples.append({"seconds": at, **side.memory()})
        ready = requests([HeadEnd()], int(options.rate * SAMPLED_EVERY), jti=True)
        load.run(side.running.port, conversations(paced(ready, options.rate), CONNECTIONS), SAMPLED_EVERY)
    samples.append({"seconds": time.monotonic() - began, **side.memory()})
    half = samples[len(samples) // 2 :]
    seconds = [sample["seconds"] for sample in half]
    summary: dict[str, Any] = {"samples": samples}
    for kind in ("resident", "own"):
        held = [sample[kind] for sample in half]
        slope = statistics.linear_regression(seconds, held).slope * 3600 if len(half) > 1 else None
        most = max(sample[kind] for sample in samples)
        summary[kind] = {"first": samples[0][kind], "largest": most, "slope_per_hour": slope}
    return summary


def _show(result: dict[str, Any]) -> None:
    print(f"\n{'':58}{'baseline':>10}{'grown':>10}{'ratio':>8}")
    for case in result["cases"]:
        print(f"{case['case']}: {'flat' if case['flat'] else 'NOT FLAT'}")
        for name, what in FIGURES:
            a, b, ratio = case["baseline"][name], case["grown"][name], case["ratios"][name]
            print(f"    {what:54}{a:10.1f}{b:10.1f}{ratio:8.2f}")
        for name, value in case["told"].items():
            print(f"    {name}: {value:,.0f}")
        print(f"    memory of the largest process: {_megabytes(case['memory'])}")
    memory = result["memory"]
    print(f"memory when ready: {_megabytes(memory['ready'])}; after the load: {_megabytes(memory['load'])}")
    for kind in ("resident", "own") if "hour" in memory else ():
        held = memory["hour"][kind]
        slope = held["slope_per_hour"]
        growth = "" if slope is None else f", {slope / 1e6:+.2f} MB per hour"
        print(f"  {kind}: first {held['first'] / 1e6:.1f}, largest {held['largest'] / 1e6:.1f} MB{growth}")
    most = max(side["resident"] for side in (memory["load"], *(case["memory"] for case in result["cases"])))
    print(f"at most {most / 1e6:.0f} MB of {MEMORY_WITHIN / 1e6:.0f}", _verdict(most <= MEMORY_WITHIN))
    ready = statistics.median(result["ready"])
    print(f"ready after {ready:.2f} s of {READY_WITHIN:.0f}", _verdict(ready <= READY_WITHIN))


def _megabytes(held: dict[str, int]) -> str:
    return f"{held['resident'] / 1e6:.1f} MB, of which {held['own'] / 1e6:.1f} not shared"


def _verdict(good: bool) -> str:
    return "" if good else "TOO MUCH"


if __name__ == "__main__":
    main()
