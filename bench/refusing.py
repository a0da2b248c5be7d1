"""What refusing a request costs, beside granting it: `python -m bench.refusing`.

One process of AGS on a throw-away PostgreSQL. 16 clients send requests as fast as they are answered: in each
round those that are granted, then each kind that is refused. Printed are the medians of the rounds, and the
CPU of each refusal, PostgreSQL included, as a ratio to that of its grant in the same round. It fails if a
ratio is above what is allowed.
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
from bench.systems import Running, ags, asking, prepared

CLIENTS = 16
PREPARED = 8_000
"""Requests of a grant that a round sends at most."""

SPENT = 256
"""Session tokens that are redeemed beforehand, and presented again in turn."""

AT_MOST = 1.1
"""How many times the CPU of its grant a refusal may take. The tenth is noise."""

AWAY = "PostgreSQL away"
"""Of this one the server is compared alone: a PostgreSQL that refuses connections is not away, and works."""

REPLAYED, FIRST_REPLAY = "jti replayed", "jti replayed at first"
"""A process knows a replay that it has seen before. At first, a second statement explains the rejection."""

FIRST_REPLAY_AT_MOST = 1.3

REPLAYS = 4096
"""Proofs that are replayed in turn. A process remembers fewer, so each has been forgotten meanwhile."""

DATABASE = "refusing"

GRANTS = {
    "getSessionToken": prepared(lambda _: map(_presented, count()), asking.head_end),
    "signOnWithSessionToken": ags.WORK["signOnWithSessionToken"],
}

REFUSALS = {
    REPLAYED: ("getSessionToken", 401, b"replayed"),
    FIRST_REPLAY: ("getSessionToken", 401, b"replayed"),
    "signature wrong": ("getSessionToken", 401, b"not_authenticated"),
    "session token spent": ("signOnWithSessionToken", 401, b"not_authenticated"),
    "session token unknown": ("signOnWithSessionToken", 401, b"not_authenticated"),
    AWAY: ("getSessionToken", 503, b"unavailable"),
}
"""For each kind of refusal the grant it is compared with, and the status and the reason of the answer."""


def _presented(number: int) -> bytes:
    """Return the request for a session token with an assertion that has a `jti`."""
    return asking.get_session_token(token=asking.operator_token(f"account-{number}", jti=str(uuid4())))


def refused_requests(running: Running) -> dict[str, Iterable[bytes]]:
    """Return the requests of each kind. What has to be accepted before is sent once here."""
    replays = [_presented(number) for number in range(REPLAYS)]
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
        AWAY: repeat(asking.get_session_token()),
    }


def client(requests: Iterable[bytes], status: int, reason: bytes) -> Conversation:
    """Send requests that are refused."""
    for request in requests:
        answer = yield request
        answer.demand(status, b'"reason": ?"%b"' % reason)


@contextmanager
def away(database: postgresql.PostgreSQL, running: Running) -> Iterator[None]:
    """Close all connections to the database of AGS, and refuse new ones until the block ends."""
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
    """Send each kind of requests for so long; return what each took."""
    taken = {}
    for name, conversations in GRANTS.items():
        clients = conversations(running, CLIENTS, PREPARED)
        taken[name], _ = rounds.measure(database, [running.pid], running.port, clients, seconds)
    for name, (_, status, reason) in REFUSALS.items():
        clients = [client(requests[name], status, reason) for _ in range(CLIENTS)]
        with away(database, running) if name == AWAY else nullcontext():
            taken[name], _ = rounds.measure(database, [running.pid], running.port, clients, seconds)
    return taken


def main() -> int:
    """Measure and print; fail if a refusal costs more than its grant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round, for each kind of request")
    options = parser.parse_args()
    figures: dict[str, list[rounds.Round]] = {}
    with (
        postgresql.server() as database,
        ags.start(database.create(DATABASE), AGS_WORKERS="1") as running,
    ):
        requests = refused_requests(running)
        for _ in range(options.rounds):
            for name, taken in measure(database, running, requests, options.seconds).items():
                figures.setdefault(name, []).append(taken)
    dear = False
    for name, seen in figures.items():
        grant, *_ = REFUSALS.get(name, (name,))
        ratio = rounds.ratio(seen, figures[grant], "server" if name == AWAY else "cpu")
        dear |= ratio > (FIRST_REPLAY_AT_MOST if name == FIRST_REPLAY else AT_MOST)
        print(name.ljust(22), f"{ratio:5.2f} ", rounds.median(seen))
    return int(dear)


if __name__ == "__main__":
    sys.exit(main())
