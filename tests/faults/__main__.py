"""Faults under load: `python -m tests.faults [--list] [--full] [--clients N] [--rate N] [NAME ...]`.

Each row starts two gateways and HAProxy, sends good requests on schedule at a quarter of what the machine
carries, and brings a fault about. It prints what must hold and what it saw; what does not hold is in bold. At
the end each token that was acknowledged is looked up in the database, with the correlation ID of its request.
The exit status is 1 where a row does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback

from bench import machine
from tests.settings import ENVIRONMENT
from tests.support.markers import find_program

os.environ |= {**ENVIRONMENT, "DJANGO_SETTINGS_MODULE": "tests.settings"}

ROUNDS, FULL_ROUNDS = 5, 20


def run_row(name: str, options: argparse.Namespace) -> bool:
    """Play a row, and print it."""
    from tests.faults.checks import Result
    from tests.faults.deployment import deploy
    from tests.faults.rows import ROWS

    row, result = ROWS[name], Result()
    rounds = FULL_ROUNDS if options.full else ROUNDS
    more = {"rate": options.rate, "clients": options.clients, "rounds": rounds}
    with deploy(options.database, row.settings, row.with_redis, **more) as deployment:
        before, idle, began = deployment.resident(), machine.idle(), time.monotonic()
        try:
            row.run(deployment, result)
        except Exception as error:  # noqa: BLE001 - the other rows are played nevertheless
            traceback.print_exc()
            result.check(False, f"ended by {type(error).__name__}: {error}")
        lost, after = deployment.count_lost_grants(), deployment.resident()
        busy = 1 - (machine.idle() - idle) / (time.monotonic() - began) / machine.CPUS
        result.check(not lost, f"{lost} of {len(deployment.grants)} acknowledged tokens lost")
        result.note(f"workers of a gateway held {max(before) / 1e6:.0f} MB, then {max(after) / 1e6:.0f}")
        result.note(f"CPUs {busy:.0%} busy")
    holds = "yes" if result.holds else "**no**"
    print(f"| {name}: {row.what} | {row.must} | {'; '.join(result.text)} | {holds} |", flush=True)
    return result.holds


def usual_rate(database: str) -> float:
    """Return a quarter of what the machine carries: slow clients and the load itself need CPU, too."""
    from tests.faults.deployment import deploy

    with deploy(database, {}) as deployment:
        carried = deployment.measure_capacity()
    print(f"{carried:.0f} requests per second over HAProxy; the load is a quarter of that.", flush=True)
    return carried / 4


def main() -> int:
    """Play the rows that are named, or all."""
    import django

    django.setup()  # before the import of the limits of the audit trail
    from tests.faults.configuration import set_up
    from tests.faults.rows import ROWS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *ROWS], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--full", action="store_true", help=f"{FULL_ROUNDS} restarts instead of {ROUNDS}")
    parser.add_argument("--clients", type=int, default=1000, help="slow clients of each kind")
    parser.add_argument("--rate", type=float, help="good requests per second; measured unless given")
    options = parser.parse_args()
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:20} {row.what}")
        return 0

    for program in ("haproxy", "redis-server"):
        if find_program(program) is None:
            parser.error(f"{program} is missing: apt-get install {program}")

    from bench.postgresql import server

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # end what was started, too
    with server() as postgresql:
        options.database = postgresql.create("faults")
        set_up(options.database)
        options.rate = options.rate or usual_rate(options.database)
        print("| fault | must hold | seen | holds |\n| --- | --- | --- | --- |")
        holds = [run_row(name, options) for name in options.names or ROWS]
    return int(not all(holds))


if __name__ == "__main__":
    sys.exit(main())
