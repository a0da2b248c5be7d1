"""What a locked row costs the requests that travel with it: `python -m bench.locked_row`.

Requests that change rows share a statement, so one that has to wait for a row lets the others of its process
wait. One process of AGS on a throw-away PostgreSQL. 16 devices refresh as fast as they are answered; in every
second round, another connection holds the row of one of them, one time in a second. Beside them, 16 head-ends
ask for session tokens, which are inserted and wait for no such row.
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
from bench.load import Taken
from bench.systems import ags

DEVICES = 16
WORK = ("refresh", "getSessionToken")
HELD_EVERY = 1.0


@contextmanager
def holding(address: str, seconds: float) -> Iterator[None]:
    """Hold the row of a device for so long, once in `HELD_EVERY`, until the block ends."""
    ended = threading.Event()

    def hold() -> None:
        with psycopg.connect(address) as other:
            while not ended.wait(HELD_EVERY - seconds):
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


def measured(running: Any, seconds: float) -> dict[str, Taken]:
    """Hold the conversations of each kind at the same time; return what they took."""
    taken: dict[str, Taken] = {}
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
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--held", type=float, default=0.3, help="seconds for which the row is locked")
    options = parser.parse_args()
    with postgresql.server() as database:
        address = database.create("locked")
        with ags.start(address, AGS_WORKERS="1") as running:
            figures: dict[tuple[str, bool], list[Taken]] = {}
            for _ in range(options.rounds):
                for locked in (False, True):
                    with holding(address, options.held) if locked else nullcontext():
                        for work, taken in measured(running, options.seconds).items():
                            figures.setdefault((work, locked), []).append(taken)
    for (work, locked), rounds in sorted(figures.items()):
        print(work.ljust(16), ("row locked" if locked else "no row locked").ljust(14), load.medians(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
