"""The cost of rejected requests, compared with accepted ones: `python -m bench.refusing`.

Runs one process of AGS on a temporary PostgreSQL. 16 clients send requests, each as soon as it has a
response: in each round those that are accepted, then each kind that is rejected. Prints the medians of the
rounds, and the CPU time of each rejection, including PostgreSQL, as a ratio to that of its accepted request
in the same round. Fails if a ratio is too large.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import count, cycle, repeat
from uuid import uuid4

import jwt
import psycopg

from bench import postgresql, rounds
from bench.load import Conversation
from bench.systems import Running, ags, asking, conversation_factory

CLIENTS = 16
PREPARED = 8_000
"""The most requests of an accepted kind in a round."""

SPENT = 256
"""Session tokens that are redeemed before the rounds, and then sent again in turn."""

MAX_RATIO = 1.1
"""The largest ratio of the CPU times of a rejection and of its accepted request. The tenth is noise."""

UNAVAILABLE = "PostgreSQL unavailable"
"""Here, only the CPU time of the server is compared: a PostgreSQL that rejects connections still uses CPU."""

REPLAYED, FIRST_REPLAY = "jti replayed", "jti replayed at first"
"""A process remembers replays. For the first one, a second statement finds the reason of the rejection."""

MAX_RATIO_OF_FIRST_REPLAY = 1.3

REPLAYS = 4096
"""JWTs that are replayed in turn. A process remembers fewer, so it has forgotten each one meanwhile."""

DATABASE = "refusing"

UNLIMITED = ags.configuration(max_failures_per_address=0, max_sign_ons_per_account=0)
"""All requests come from one address, and those of a kind are for one account."""

GRANTS = {
    "getSessionToken": conversation_factory(lambda _: map(_request_with_jti, count()), asking.head_end),
    "signOnWithSessionToken": ags.WORK["signOnWithSessionToken"],
}

REFUSALS = {
    REPLAYED: ("getSessionToken", 401, b"replayed"),
    FIRST_REPLAY: ("getSessionToken", 401, b"replayed"),
    "signature wrong": ("getSessionToken", 401, b"not_authenticated"),
    "session token spent": ("signOnWithSessionToken", 401, b"not_authenticated"),
    "session token unknown": ("signOnWithSessionToken", 401, b"not_authenticated"),
    UNAVAILABLE: ("getSessionToken", 503, b"unavailable"),
}
"""For each kind of rejection the accepted request, and the status and reason of the response."""


def _request_with_jti(number: int) -> bytes:
    """Return a request for a session token with a JWT that has a `jti`."""
    return asking.get_session_token(token=asking.operator_token(f"account-{number}", jti=str(uuid4())))


def refused_requests(running: Running) -> dict[str, Iterable[bytes]]:
    """Return the requests of each kind. Sends the requests that must be accepted before."""
    replays = [_request_with_jti(number) for number in range(REPLAYS)]
    spent = list(asking.sign_ons(running, SPENT))
    running.hold([asking.head_end(replays)])
    running.hold([asking.client_app(spent)])
    claims = {"typ": "GetSessionTokenAuthN", "aud": "ags", "exp": int(time.time()) + 3600}
    forged = jwt.encode(claims, secrets.token_bytes(32), "HS256", {"kid": asking.KID})
    return {
        REPLAYED: repeat(replays[0]),
        FIRST_REPLAY: cycle(replays),
        "signature wrong": repeat(asking.get_session_token(token=forged)),
        "session token spent": cycle(spent),
        "session token unknown": (asking.sign_on(secrets.token_hex(13)) for _ in repeat(None)),
        UNAVAILABLE: repeat(asking.get_session_token()),
    }


def client(requests: Iterable[bytes], status: int, reason: bytes) -> Conversation:
    """Send requests that are rejected."""
    for request in requests:
        answer = yield request
        answer.expect(status, b'"reason": ?"%b"' % reason)


@contextmanager
def unavailable(database: postgresql.PostgreSQL, running: Running) -> Iterator[None]:
    """Close all connections to the database of AGS, and reject new ones until the block ends."""
    with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [DATABASE]
        )
        try:
            _wait_until(running, is_ready=False)
            yield
        finally:
            connection.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")
            _wait_until(running, is_ready=True)


def _wait_until(running: Running, *, is_ready: bool) -> None:
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{running.port}/readyz", timeout=5).close()
        except urllib.error.HTTPError:
            if not is_ready:
                return
        else:
            if is_ready:
                return
        time.sleep(0.1)
    raise TimeoutError("the readiness of the server does not change")


def measure(
    database: postgresql.PostgreSQL,
    running: Running,
    requests: Mapping[str, Iterable[bytes]],
    seconds: float,
) -> dict[str, rounds.Round]:
    """Run a round of each kind of request; return its figures."""
    taken = {}
    for name, conversations in GRANTS.items():
        clients = conversations(running, CLIENTS, PREPARED)
        taken[name], _ = rounds.measure(database, [running.pid], running.port, clients, seconds)
    for name, (_, status, reason) in REFUSALS.items():
        clients = [client(requests[name], status, reason) for _ in range(CLIENTS)]
        with unavailable(database, running) if name == UNAVAILABLE else nullcontext():
            taken[name], _ = rounds.measure(database, [running.pid], running.port, clients, seconds)
    return taken


def main() -> int:
    """Measure and print; fail if a ratio is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="duration of a round, for each kind of request"
    )
    options = parser.parse_args()
    figures: dict[str, list[rounds.Round]] = {}
    with (
        postgresql.server() as database,
        ags.start(database.create(DATABASE), wanted=UNLIMITED, AGS_WORKERS="1") as running,
    ):
        requests = refused_requests(running)
        for _ in range(options.rounds):
            for name, taken in measure(database, running, requests, options.seconds).items():
                figures.setdefault(name, []).append(taken)
    too_expensive = False
    for name, seen in figures.items():
        grant, *_ = REFUSALS.get(name, (name,))
        ratio = rounds.ratio(seen, figures[grant], "server" if name == UNAVAILABLE else "cpu")
        too_expensive |= ratio > (MAX_RATIO_OF_FIRST_REPLAY if name == FIRST_REPLAY else MAX_RATIO)
        print(name.ljust(22), f"{ratio:5.2f} ", rounds.median(seen))
    return int(too_expensive)


if __name__ == "__main__":
    sys.exit(main())
