"""How a locked row affects requests that share a statement with its own: `python -m bench.locked_row`.

Requests that change rows share a statement, so one that waits for a row delays the others of its process.
Runs one process of AGS on a temporary PostgreSQL. 16 devices refresh, each as soon as it has a response. In
every second round, another connection locks the row of one device, once a second. At the same time, 16
head-ends request session tokens, which are inserted and do not wait for that row.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg

from bench import load, postgresql
from bench.load import LoadResult
from bench.systems import ags

DEVICES = 16
WORK = ("refresh", "getSessionToken")
LOCK_INTERVAL = 1.0


@contextmanager
def lock_row(address: str, seconds: float) -> Iterator[None]:
    """Lock the row of a device for `seconds`, once in each `LOCK_INTERVAL`, until the block ends."""
    ended = threading.Event()

    def hold() -> None:
        with psycopg.connect(address) as other:
            while not ended.wait(LOCK_INTERVAL - seconds):
                other.execute("SELECT 1 FROM ags_sessions_device ORDER BY id DESC LIMIT 1 FOR UPDATE")
                ended.wait(seconds)
                other.rollback()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(running: Any, seconds: float) -> dict[str, LoadResult]:
    """Run the conversations of each kind of work at the same time; return their latencies."""
    taken: dict[str, LoadResult] = {}
    ready = {work: ags.WORK[work](running, DEVICES, 100_000) for work in WORK}
    threads = [
        threading.Thread(target=lambda work=work: taken.update({work: running.hold(ready[work], seconds)}))
        for work in WORK
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a round")
    parser.add_argument("--held", type=float, default=0.3, help="seconds for which the row is locked")
    options = parser.parse_args()
    with postgresql.server() as database:
        address = database.create("locked")
        with ags.start(address, AGS_WORKERS="1") as running:
            figures: dict[tuple[str, bool], list[LoadResult]] = {}
            for _ in range(options.rounds):
                for locked in (False, True):
                    with lock_row(address, options.held) if locked else nullcontext():
                        for work, taken in measure(running, options.seconds).items():
                            figures.setdefault((work, locked), []).append(taken)
    for (work, locked), rounds in sorted(figures.items()):
        print(work.ljust(16), ("row locked" if locked else "no row locked").ljust(14), load.medians(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
