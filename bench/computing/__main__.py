"""How a provider that computes for long affects other requests: `python -m bench.computing`.

Runs one process of AGS on a temporary PostgreSQL. 16 head-ends request session tokens, each as soon as it has
a response. At the same time, one client sends requests to a provider that computes: in a thread, which is the
default, or on the event loop, where the provider declares `blocking = False` although it should not.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from bench import load, postgresql
from bench.load import Conversation, LoadResult
from bench.systems import Running, ags
from bench.systems.asking import TENANT

HEAD_ENDS = 16
PROVIDERS = "providers.operator_token,bench.computing"
SERVICE = "Computing"


def request_computation(seconds: float, ended: threading.Event) -> Conversation:
    """Send requests to the provider that computes until `ended` is set."""
    headers = {"nv-tenant-id": TENANT, "x-auth-service-id": SERVICE}
    body = f'{{"parameters":[{{"name":"Seconds","value":"{seconds}"}}]}}'.encode()
    request = load.post("/ags/getSessionToken", body, headers)
    while not ended.is_set():
        answer = yield request
        answer.expect(200, b"sessionToken")


@contextmanager
def computing_client(running: Running, seconds: float) -> Iterator[None]:
    """Run one client of the provider that computes until the block ends."""
    ended = threading.Event()
    thread = threading.Thread(target=running.hold, args=([request_computation(seconds, ended)],))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a round")
    parser.add_argument("--computes", type=float, default=1.0, help="seconds for which the provider computes")
    options = parser.parse_args()
    wanted = ags.configuration()
    wanted["tenants"][0]["services"].append(
        {"name": SERVICE, "strategy": "computing", "enabled": True, "display_name": SERVICE}
    )
    with postgresql.server() as database:
        for on_the_loop, place in enumerate(("in a thread", "on the loop")):
            figures: dict[str, list[LoadResult]] = {}
            address = database.create(f"computing{on_the_loop}")
            environment = {"AGS_PROVIDERS": PROVIDERS, "BENCH_ON_THE_LOOP": str(on_the_loop)}
            with ags.start(address, wanted=wanted, AGS_WORKERS="1", **environment) as running:
                for _ in range(options.rounds):
                    for name in ("alone", place):
                        conversations = ags.WORK["getSessionToken"](running, HEAD_ENDS, 100_000)
                        with (
                            nullcontext() if name == "alone" else computing_client(running, options.computes)
                        ):
                            figures.setdefault(name, []).append(running.hold(conversations, options.seconds))
            for name, rounds in figures.items():
                print(name.ljust(12), load.medians(rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
