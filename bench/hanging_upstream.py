"""How an upstream that hangs affects requests that do not need it: `python -m bench.hanging_upstream`.

Runs a production server on a temporary PostgreSQL, for an operator with two services. 16 head-ends request
session tokens of the first service (`operator_token`), each as soon as it has a response. In every second
round, 32 client apps also send requests to the second service, whose upstream accepts connections and never
responds; after a 503 each waits for the time in Retry-After. Prints the 99th percentile of the first service
in each round, and the ratio of the medians with and without client apps.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import yaml

from bench.systems import ROOT, free_port

HEAD_ENDS, CLIENT_APPS = 16, 32
TENANT, FAST, SLOW = "bench", "Fast", "Hanging"
SECRET, KID = secrets.token_bytes(32), "bench-key"
MAX_RATIO = 2.0
"""The largest ratio of the 99th percentiles with and without client apps."""


@contextmanager
def silent_upstream() -> Iterator[int]:
    """Accept every connection, and never send anything."""
    kept = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def accept() -> None:
            while True:
                try:
                    kept.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for wire in kept:
        wire.close()


def configuration(port: int) -> dict[str, Any]:
    """Return the configuration of the operator for `manage.py apply`."""
    hanging = {
        "address": f"https://127.0.0.1:{port}/introspect",
        "client_id": "ags",
        "client_secret": "a secret of the bench",
    }
    common = {"enabled": True, "display_name": "Bench"}
    return {
        "tenants": [
            {
                "id": TENANT,
                "name": "Bench",
                "services": [
                    {"name": FAST, "strategy": "operator_token", **common},
                    {"name": SLOW, "strategy": "token_introspection", "settings": hanging, **common},
                ],
                "keys": [
                    {
                        "kid": KID,
                        "algorithm": "HS256",
                        "state": "active",
                        "secret": {"env": "BENCH_SECRET", "encoding": "base64"},
                    }
                ],
            }
        ]
    }


@contextmanager
def server(database: str, upstream: int) -> Iterator[int]:
    """Run `manage.py serve` with this operator; yield its port."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database,
        "SECRET_KEY": secrets.token_urlsafe(48),
        "AGS_ENCRYPTION_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
        "AGS_PROVIDERS": "providers.operator_token,providers.token_introspection",
        "AGS_PRIVATE_UPSTREAMS": "127.0.0.0/8",
        "AGS_ALLOWED_HOSTS": "127.0.0.1",
        "AGS_TRUSTED_PROXIES": "0",
        "AGS_BIND": f"127.0.0.1:{port}",
        "AGS_LOG_LEVEL": "ERROR",
        "AGS_PURGE": "off",
        "BENCH_SECRET": base64.b64encode(SECRET).decode(),
    }

    def manage(*words: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    manage("migrate", "--verbosity=0")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(configuration(upstream), file)
        file.flush()
        manage("apply", file.name)
    process = subprocess.Popen([sys.executable, "manage.py", "serve"], cwd=ROOT, env=environment)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int) -> None:
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            wire.request("GET", "/readyz")
            if wire.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            wire.close()
    raise TimeoutError("the server is not ready")


def _post(wire: http.client.HTTPConnection, service: str, name: str, value: str) -> int:
    body = json.dumps({"parameters": [{"name": name, "value": value}]})
    headers = {"Content-Type": "application/json", "nv-tenant-id": TENANT, "x-auth-service-id": service}
    wire.request("POST", "/ags/getSessionToken", body, headers)
    answer = wire.getresponse()
    answer.read()
    return answer.status


def head_ends(port: int, seconds: float) -> list[float]:
    """Send requests, each after the response to the one before; return the latencies in seconds."""
    taken: list[float] = []
    ends = time.monotonic() + seconds

    def send_requests() -> None:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < ends:
            claims = {
                "typ": "GetSessionTokenAuthN",
                "aud": "ags",
                "exp": int(time.time()) + 300,
                "OpfTenantId": TENANT,
                "OpfAccountId": str(uuid.uuid4()),
            }
            token = jwt.encode(claims, SECRET, "HS256", {"kid": KID})
            began = time.perf_counter()
            status = _post(wire, FAST, "OperatorAuthToken", token)
            taken.append(time.perf_counter() - began)
            if status != 200:
                raise AssertionError(f"answered {status}")

    threads = [threading.Thread(target=send_requests) for _ in range(HEAD_ENDS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def client_apps(port: int, results: Any, stop: Any) -> None:
    """Send requests to the service that hangs until `stop` is set.

    Puts the number of responses by status, and the longest latency, into `results`.
    """
    statuses: dict[int, int] = {}
    waits: list[float] = []

    def send_requests() -> None:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not stop.is_set():
            began = time.perf_counter()
            status = _post(wire, SLOW, "AccessToken", "an-access-token")
            waits.append(time.perf_counter() - began)
            statuses[status] = statuses.get(status, 0) + 1
            stop.wait(1)  # Retry-After

    threads = [threading.Thread(target=send_requests) for _ in range(CLIENT_APPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((statuses, max(waits)))


@contextmanager
def requesting_hanging_service(port: int, counts: dict[int, int], longest: list[float]) -> Iterator[None]:
    """Run the client apps in a process of their own."""
    results: Any = multiprocessing.Queue()
    stop = multiprocessing.Event()
    process = multiprocessing.Process(target=client_apps, args=(port, results, stop))
    process.start()
    time.sleep(1)
    try:
        yield
    finally:
        stop.set()
        statuses, wait = results.get(timeout=30)
        process.join()
        longest.append(wait)
        for status, times in statuses.items():
            counts[status] = counts.get(status, 0) + times


def percentile(taken: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return sorted(taken)[int(len(taken) * share)] * 1000


def main() -> int:
    """Measure and print; fail if the ratio is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    from tests.__main__ import postgresql

    alone: list[float] = []
    beside: list[float] = []
    counts: dict[int, int] = {}
    longest: list[float] = []
    with postgresql() as database, silent_upstream() as upstream, server(database, upstream) as port:
        head_ends(port, 2)
        for _ in range(options.rounds):
            taken = head_ends(port, options.seconds)
            alone.append(percentile(taken, 0.99))
            with requesting_hanging_service(port, counts, longest):
                beside_taken = head_ends(port, options.seconds)
            beside.append(percentile(beside_taken, 0.99))
            print(
                f"alone {len(taken) / options.seconds:6.0f}/s, p50 {percentile(taken, 0.5):5.1f} ms, "
                f"p99 {alone[-1]:5.1f} ms;  beside {len(beside_taken) / options.seconds:6.0f}/s, "
                f"p50 {percentile(beside_taken, 0.5):5.1f} ms, p99 {beside[-1]:5.1f} ms",
                flush=True,
            )
            time.sleep(1)
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"statuses of the service that hangs: {counts}, longest wait {max(longest):.2f} s")
    print(
        f"p99 of the first service: {ratio:.2f} times that without client apps, at most {MAX_RATIO} (medians)"
    )
    return int(ratio > MAX_RATIO or set(counts) != {503})


if __name__ == "__main__":
    sys.exit(main())
