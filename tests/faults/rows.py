"""The faults: a table of rows, and what each does and sees."""

from __future__ import annotations

import json
import math
import operator
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

import psutil

from bench.hanging_upstream import silent_upstream
from bench.load import post
from bench.systems import asking
from tests.faults import slow
from tests.faults.checks import BESIDE, WARM_UP, Result, check_good_traffic, check_no_failure, warm_up
from tests.faults.configuration import PROVIDERS, set_up
from tests.faults.deployment import (
    Deployment,
    Gateway,
)
from tests.faults.limits import ADDRESSES, DELAY, HEAD_END, REFUSED, flood, one_address, redis_fails
from tests.faults.traffic import Samples, idle_connections, open_loop_load
from tests.support.upstream.redis_server import RedisServer
from tests.support.waiting import wait_until

CLOSED, CLOSED_BY_HAPROXY = 13.0, 15.0
"""Seconds after which a slow client is closed: 10, the linger, and the time between two looks.

HAProxy closes when AGS has, and the client sends once more.
"""

BUFFERS = 20_000_000
"""Bytes that a gateway may grow by, besides what it has received."""

SOON = 2.0
"""Seconds within which processes come and go."""

FILES = 256
"""That a worker may open, where there are too few."""


def slow_clients(
    deployment: Deployment, result: Result, kind: str, directly: bool, number: int = 0, files: int = 0
) -> None:
    """Hold slow clients beside good traffic, and see when they are closed, if AGS is to do that."""
    one = deployment.gateways[0]
    port = one.port if directly else deployment.proxy
    if files:
        one.limit_files(files)
    grown, logged = 0, len(one.log)
    with deployment.traffic([port]) as samples:
        usual = warm_up()
        began, memory = time.monotonic(), deployment.resident()
        with (
            slow.closings(port) as closed,
            slow.clients(kind, [port], number or deployment.clients) as held,
        ):
            while time.monotonic() < max(held.values()) + BESIDE:
                time.sleep(0.5)
                grown = max(grown, *map(operator.sub, deployment.resident(), memory))
        ended = time.monotonic()
    check_good_traffic(result, samples, usual, began, ended)
    result.check(grown <= held.sent + BUFFERS, f"+{grown / 1e6:.0f} MB for {held.sent / 1e6:.1f} MB received")
    if directly or kind == "bodies":
        after = sorted(max(closed.get(client, 0) - opened, 0) for client, opened in held.items())
        number_closed = len(held) - after.count(math.inf)
        result.check(
            after[-1] <= (CLOSED if directly else CLOSED_BY_HAPROXY),
            f"{number_closed} of {len(held)} closed after {after[0]:.0f} to {after[-1]:.0f} s",
        )
    if files:
        lines = one.log[logged:].splitlines()
        result.check(bool(lines), f"{len(lines)} lines logged")


def rolling_restart(deployment: Deployment, result: Result) -> None:
    """Stop and start each gateway in turn, beside kept connections of HAProxy and of another balancer."""
    statuses = []
    with deployment.traffic(
        [deployment.proxy], other_balancer=(idle_connections, deployment.ports)
    ) as samples:
        time.sleep(3)
        for gateway in deployment.gateways * deployment.rounds:
            statuses.append(gateway.restart())
            wait_until(deployment.is_balanced, "HAProxy does not take the gateway back")
        time.sleep(2)
    check_no_failure(result, samples)
    result.check(not any(statuses), f"{len(statuses)} restarts, exit statuses {set(statuses)}")


def reload(deployment: Deployment, result: Result) -> None:
    """Send HUP to each gateway in turn."""
    with deployment.traffic(
        [deployment.proxy], other_balancer=(idle_connections, deployment.ports)
    ) as samples:
        time.sleep(3)
        for gateway in deployment.gateways * deployment.rounds:
            gateway.reload()
            time.sleep(1)
    check_no_failure(result, samples)
    failed = samples["probe"].failed()
    result.check(not failed, f"{len(failed)} of {len(samples['probe'])} probes failed ({failed.statuses()})")


def kill_workers(deployment: Deployment, result: Result) -> None:
    """Kill each worker in turn."""
    kills: list[tuple[float, float]] = []
    connections = 0
    with deployment.traffic([deployment.proxy]) as samples:
        time.sleep(3)
        for gateway in deployment.gateways:
            for worker in gateway.workers():
                connections += len(psutil.Process(worker).net_connections("tcp4"))
                began = time.monotonic()
                gateway.kill_worker(worker)
                kills.append((began, time.monotonic()))
                time.sleep(3)
    failed = samples["good"].failed()
    late = [one for one in failed if not any(a - one.seconds <= one.due <= b for a, b in kills)]
    result.check(not late, f"{len(late)} requests failed that no kill had met")
    result.check(
        len(failed) <= connections,
        f"{len(failed)} of {len(samples['good'])} failed; {connections} connections were on the killed",
    )
    result.check(max(b - a for a, b in kills) <= SOON, f"new workers in {max(b - a for a, b in kills):.1f} s")


def kill_parents(deployment: Deployment, result: Result) -> None:
    """Kill the first process of each gateway, and start the gateway again."""
    with deployment.traffic([deployment.proxy]) as samples:
        time.sleep(3)
        for gateway in deployment.gateways:
            gone = kill_parent(gateway)
            result.check(gone <= SOON, f"workers gone after {gone:.1f} s")
            if gone > SOON:
                os.killpg(gateway.pid, signal.SIGKILL)
            began = time.monotonic()
            gateway.start_again()
            result.note(f"answers {time.monotonic() - began:.1f} s after its start")
            wait_until(deployment.is_balanced, "HAProxy does not take the gateway back")
    failed = samples["good"].failed()
    result.note(f"{len(failed)} of {len(samples['good'])} failed meanwhile ({failed.statuses()})")


def kill_parent(gateway: Gateway) -> float:
    """Kill it; return after how many seconds its workers were gone, or infinity."""
    workers = [psutil.Process(pid) for pid in gateway.workers()]
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait()
    began = time.monotonic()
    while time.monotonic() - began <= SOON + 1:
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers):
            return time.monotonic() - began
        time.sleep(0.05)
    return float("inf")


def bulkheads(deployment: Deployment, result: Result) -> None:
    """Fill the places of all workers with requests for two upstreams that accept and never answer."""
    with ExitStack() as held:
        services = [hanging(name, held.enter_context(silent_upstream())) for name in ("first", "second")]
        set_up(deployment.database, *services)
        names = cycle(str(service["name"]) for service in services)
        hung = (open_loop_load, deployment.ports, 40.0, lambda: introspect(next(names)))
        with deployment.traffic([deployment.proxy]) as samples:
            usual = warm_up()
        with deployment.traffic([deployment.proxy], hung=hung) as beside:
            time.sleep(WARM_UP)
            began = time.monotonic()
            time.sleep(BESIDE)
            ended = time.monotonic()
    both = {name: Samples(samples[name] + beside[name]) for name in samples}
    check_good_traffic(result, both, usual, began, ended)
    result.check({one.status for one in beside["hung"]} == {503}, f"hanging: {beside['hung'].statuses()}")


def hanging(name: str, port: int) -> dict[str, object]:
    """Return a service whose upstream hangs."""
    settings = {"address": f"https://127.0.0.1:{port}/", "client_id": "ags", "client_secret": "a secret"}
    its = {"name": name, "strategy": "token_introspection", "enabled": True, "display_name": name}
    return {**its, "settings": settings}


def introspect(service: str) -> bytes:
    """Return a request that waits for an upstream."""
    body = json.dumps({"parameters": [{"name": "AccessToken", "value": "an-access-token"}]}).encode()
    return post("/ags/getSessionToken", body, {"nv-tenant-id": asking.TENANT, "x-auth-service-id": service})


@dataclass(frozen=True)
class Row:
    """A fault: `what` explains it, `must` says what must hold, `run` does it and checks."""

    what: str
    must: str
    run: Callable[[Deployment, Result], None]
    settings: dict[str, str] = field(default_factory=dict)
    with_redis: bool = False


GOOD = "99.9 % of good traffic served, p99 within twice its usual, health under 100 ms"
GREW = "memory grows by at most what was received and 20 MB"
SLOW = {
    "heads": "Clients send the head of a request a byte a second",
    "bodies": "Clients send the body of a request a byte a second",
    "readers": "Clients ask for large answers and do not read them",
}
CLOSES = "; closed after 10 s"
THROUGH_HAPROXY = {
    "heads": "through HAProxy, which holds slow heads itself: AGS sees none",
    "bodies": "through HAProxy, which passes bodies on, and the answer of AGS after 10 s",
    "readers": "through HAProxy, which closes such clients itself, by its own timeout",
}
ROWS = {
    **{
        f"slow-{kind}-{way}": Row(
            f"{what}, {'directly' if directly else THROUGH_HAPROXY[kind]}.",
            f"{GOOD}; {GREW}{CLOSES if directly or kind == 'bodies' else ''}",
            partial(slow_clients, kind=kind, directly=directly),
        )
        for kind, what in SLOW.items()
        for way, directly in (("direct", True), ("haproxy", False))
    },
    "silent": Row(
        "2,000 connections are opened, and nothing is sent.",
        f"{GOOD}; {GREW}{CLOSES}",
        partial(slow_clients, kind="silent", directly=True, number=2000),
    ),
    "descriptors": Row(
        "Silent connections use up the file descriptors of a gateway.",
        f"{GOOD}; {GREW}{CLOSES}; logged",
        partial(slow_clients, kind="silent", directly=True, files=FILES),
    ),
    "rolling-restart": Row(
        "Each gateway in turn is stopped by SIGTERM and started again, without draining by hand.",
        "no failed request, through HAProxy and on idle connections of another balancer; exit status 0",
        rolling_restart,
    ),
    "reload": Row("Each gateway in turn gets HUP.", "no failed request, ready throughout", reload),
    "kill-worker": Row(
        "Each worker in turn is killed.",
        "only requests in flight on it fail; a new worker within 2 s",
        kill_workers,
    ),
    "kill-parent": Row(
        "The first process of each gateway is killed.",
        "its workers are gone within 2 s; a restart works at once",
        kill_parents,
    ),
    "bulkheads": Row(
        "Requests that wait for hanging upstreams fill every place that there is for them.",
        GOOD,
        bulkheads,
        {"AGS_PROVIDERS": PROVIDERS},
    ),
    "flood": Row(
        f"{REFUSED:,} requests from {len(ADDRESSES)} addresses are refused, at the rate of the good ones.",
        f"{GOOD}; each refusal is stored or counted, and at most the maximum of a minute stored",
        flood,
    ),
    "one-address": Row(
        f"A head-end sends {HEAD_END:.0f} good requests in a second from one address.",
        "none is limited",
        one_address,
    ),
    **{
        f"redis-{name}": Row(
            f"Redis {what} for {BESIDE:.0f} s.",
            f"no failed request, p99 within {DELAY:.0f} ms of its usual",
            partial(redis_fails, fail=fail, repair=repair),
            with_redis=True,
        )
        for name, what, fail, repair in (
            ("killed", "is killed, and missing", RedisServer.kill, RedisServer.start),
            ("stopped", "is stopped by SIGSTOP", RedisServer.stop, RedisServer.resume),
            ("full", "has no memory left", RedisServer.fill, RedisServer.free),
        )
    },
}
"""Besides what it says, no row may lose a token that was acknowledged, or its correlation ID."""
