"""`python -m bench.machines`: throughput with more machines, and the cost of a session token in PostgreSQL.

A process with a share of a CPU simulates a machine. With small shares, several of them fit on one machine,
with PostgreSQL and the load generator.
"""

from __future__ import annotations

import argparse
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import cost, load, machine, postgresql, quota, rounds
from bench.head_end import HeadEnd, conversations, requests
from bench.postgresql import PostgreSQL
from bench.systems import ROOT, Running, ags, free_port, process

COUNTS = (1, 2, 4)
CONNECTIONS = 8
"""For each process."""

RATES = (1_000, 10_000, 100_000)
"""Session tokens per second for which the cost is computed."""

RESULT = ROOT / "bench" / "machines.json"


@dataclass(frozen=True, slots=True)
class Machine:
    """A server with a share of a CPU."""

    running: Running
    group: quota.Group


def main() -> None:
    """Measure, print and write."""
    options = _options()
    result: dict[str, Any] = {"options": {k: v for k, v in vars(options).items() if k != "result"}}
    with postgresql.server() as database:
        result["machine"] = {"cpus": machine.CPUS, "postgresql": database.version()}
        result["machines"] = _measure_machines(database, options)
        result["costs"] = {}
        for name, jti in (("with a jti", True), ("without", False)):
            print(f"cost of {options.issues:,} session tokens, {name}", flush=True)
            result["costs"][name] = asdict(cost.measure(database, options.issues, jti=jti))
    _show(result)
    options.result.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Written to {options.result}")


def _options() -> Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.machines", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="rounds of each number of processes")
    add("--seconds", type=float, default=8.0, help="duration of a round")
    add("--share", type=float, default=0.2, help="share of a CPU of each process")
    add(
        "--postgresql-share",
        type=float,
        default=0.08,
        help="share of a CPU of PostgreSQL where it is to be the limit",
    )
    add("--issues", type=int, default=200_000, help="session tokens of which the cost is measured")
    add("--result", type=Path, default=RESULT)
    return parser.parse_args()


def _measure_machines(database: PostgreSQL, options: Namespace) -> list[dict[str, Any]] | str:
    """Measure each number of processes, without and with a limit on the CPU of PostgreSQL."""
    try:
        with (
            quota.group("postgresql") as limited,
            _start_machines(database, max(COUNTS), options.share) as machines,
        ):
            limited.add(database.pid)
            found = []
            for share in (None, options.postgresql_share):
                limited.limit(share)
                print(f"PostgreSQL with {_format_share(share)}", flush=True)
                found += _run_rounds(database, machines, limited, share, options)
            limited.limit(None)
            return found
    except quota.Unavailable as problem:
        print(f"Left out: more machines: {problem}", flush=True)
        return f"left out: {problem}"


@contextmanager
def _start_machines(database: PostgreSQL, number: int, share: float) -> Iterator[list[Machine]]:
    """Run `number` servers on one database."""
    address = database.create("machines")
    first = ags.environment(address, free_port(), AGS_WORKERS="1")
    ags.apply(first, ags.configuration())
    with ExitStack() as stack:
        machines = []
        for number_of_machine in range(number):
            port = free_port()
            settings = {**first, "AGS_BIND": f"127.0.0.1:{port}"}
            group = stack.enter_context(quota.group(f"machine-{number_of_machine}"))
            words = [sys.executable, "manage.py", "serve"]
            running = stack.enter_context(process(words, settings, port))
            load.run(port, conversations(requests([HeadEnd()], 500), CONNECTIONS), 60)
            group.limit(share)
            group.add(running.pid)
            machines.append(Machine(running, group))
        yield machines


def _run_rounds(
    database: PostgreSQL,
    machines: list[Machine],
    limited: quota.Group,
    share: float | None,
    options: Namespace,
) -> list[dict[str, Any]]:
    taken: dict[int, list[rounds.Round]] = {count: [] for count in COUNTS}
    waited = dict.fromkeys(COUNTS, 0.0)
    most = 1000.0
    for _ in range(options.rounds):
        for count in COUNTS:
            some = machines[:count]
            ready = requests([HeadEnd()], int(most * options.seconds * 1.5) * count, jti=True)
            before = limited.throttled()
            one, _ = rounds.measure(
                database,
                [each.running.pid for each in some],
                [each.running.port for each in some],
                conversations(ready, CONNECTIONS * count),
                options.seconds,
            )
            waited[count] += limited.throttled() - before
            most = max(most, one.per_second / count)
            taken[count].append(one)
            print(f"  {count} processes: {one}", flush=True)
    return [
        {
            "postgresql_share": share,
            "processes": count,
            "per_process": rounds.median(each).per_second / count,
            "postgresql_waited": waited[count] / (options.seconds * options.rounds),
            "median": asdict(rounds.median(each)),
            "rounds": [asdict(one) for one in each],
        }
        for count, each in taken.items()
    ]


def _show(result: dict[str, Any]) -> None:
    found = result["machines"]
    if isinstance(found, list):
        _show_machines(found, result["options"]["share"])
    for name, spent in result["costs"].items():
        _show_cost(name, spent)


def _show_machines(found: list[dict[str, Any]], share: float) -> None:
    print(f"\nEach process has {_format_share(share)}.")
    heads = ("processes", "tokens/s", "of each", "p50 ms", "p99 ms", "CPU used", "machine idle")
    print(f"{'PostgreSQL has':18}" + "".join(f"{head:>13}" for head in heads))
    for row in found:
        of_all = row["median"]
        figures = (
            f"{row['processes']}",
            f"{of_all['per_second']:.0f}",
            f"{row['per_process']:.0f}",
            f"{of_all['p50']:.1f}",
            f"{of_all['p99']:.1f}",
            f"{of_all['per_second'] * of_all['postgresql'] / 1e6:.0%}",
            f"{of_all['idle']:.0%}",
        )
        print(f"{_format_share(row['postgresql_share']):18}" + "".join(f"{figure:>13}" for figure in figures))


def _show_cost(name: str, spent: dict[str, Any]) -> None:
    print(f"\nCost of a session token in PostgreSQL, {name}, mean of {spent['issues']:,}:")
    print(f"  {spent['cpu']:.0f} µs of CPU: {1e6 / spent['cpu']:,.0f} per second for each CPU")
    print(f"  {spent['wal_bytes']:,.0f} bytes of WAL in {spent['wal_records']:.1f} records, "
          f"{spent['page_images']:.3f} of them with a whole page")  # fmt: skip
    print(f"  {spent['flushes']:.2f} flushes and {spent['writes']:.2f} writes of the WAL")
    print(f"  {spent['table_bytes']:.0f} bytes of the table")
    print(f"  {len(spent['indexes'])} entries of indexes, {sum(spent['indexes'].values()):.0f} bytes:")
    for index, size in spent["indexes"].items():
        print(f"    {size:4.0f}  {spent['definitions'][index].partition(' ON ')[2]}")
    for rate in RATES:
        wal, cpus = rate * spent["wal_bytes"] / 1e6, rate * spent["cpu"] / 1e6
        print(f"  {rate:,} per second: {cpus:.1f} CPUs, {wal:.1f} MB/s of WAL")


def _format_share(share: float | None) -> str:
    return "all that is left" if share is None else f"{share:.0%} of a CPU"


if __name__ == "__main__":
    main()
