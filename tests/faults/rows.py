"""The faults: a table of rows, and what each does and sees."""

from __future__ import annotations

import base64
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
from bench.systems import ags, asking
from tests.faults import slow
from tests.faults.deployment import Deployment, Gateway
from tests.faults.traffic import Samples, idle_connections, open_loop_load
from tests.support.server import server_environment
from tests.support.waiting import wait_until

SERVED, SLOWER, HEALTH = 0.999, 2.0, 100.0
"""Of good traffic; times its usual p99; milliseconds."""

WARM_UP, USUAL, BESIDE = 3.0, 10.0, 15.0
"""Seconds of traffic at first, before a fault, and beside it."""

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

PROVIDERS = "providers.operator_token,providers.token_introspection"


class Result:
    """What was seen of a row, and whether it holds."""

    def __init__(self) -> None:
        self.holds = True
        self.text: list[str] = []

    def check(self, holds: bool, text: str) -> None:
        """Note something that must hold."""
        self.holds &= holds
        self.text.append(text if holds else f"**{text}**")

    def note(self, text: str) -> None:
        """Note something that is only worth knowing."""
        self.text.append(text)


def warm_up() -> float:
    """Let traffic warm up, then run as usual; return when the usual began."""
    time.sleep(WARM_UP)
    began = time.monotonic()
    time.sleep(USUAL)
    return began


def check_good_traffic(
    result: Result, samples: dict[str, Samples], usual: float, began: float, ended: float
) -> None:
    """Compare good traffic beside a fault with the usual before it; check the probes of health."""
    before, beside = samples["good"].between(usual, began), samples["good"].between(began, ended)
    failed, p99 = beside.failed(), beside.percentile(0.99)
    served = 1 - len(failed) / len(beside)
    if before.failed():
        result.check(False, f"{len(before.failed())} of {len(before)} failed before the fault")
    result.check(served >= SERVED, f"{served:.2%} of {len(beside)} served ({beside.statuses()})")
    result.check(
        p99 <= SLOWER * before.percentile(0.99),
        f"p50 {beside.percentile(0.5):.0f}, p99 {p99:.0f} ms, before "
        f"{before.percentile(0.5):.0f}, {before.percentile(0.99):.0f} ms",
    )
    before, beside = samples["probe"].between(usual, began), samples["probe"].between(began, ended)
    longest, usually = beside.percentile(1), before.percentile(1)
    result.check(
        not beside.failed() and longest < HEALTH,
        f"health at most {longest:.0f} ms, before {usually:.0f} ({beside.statuses()})",
    )
    late = samples["timer"]
    result.note(
        f"a timer at most {late.between(began, ended).percentile(1):.0f} ms late, "
        f"before {late.between(usual, began).percentile(1):.0f}"
    )


def check_no_failure(result: Result, samples: dict[str, Samples]) -> None:
    """Check that every request was answered with 200."""
    for name in samples.keys() - {"probe", "timer"}:
        kind = samples[name]
        text = f"{name}: {len(kind.failed())} of {len(kind)} failed"
        result.check(not kind.failed(), text + (f" ({kind.failed().statuses()})" if kind.failed() else ""))


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


def set_up(database: str, *services: dict[str, object]) -> None:
    """Migrate, and set the tenant up."""
    its = ags.configuration()
    its["tenants"][0]["services"] += services
    secret = base64.b64encode(asking.SECRET).decode()
    more = {"DATABASE_URL": database, "BENCH_SECRET": secret, "AGS_LOG_LEVEL": "ERROR"}
    ags.apply(server_environment(AGS_PROVIDERS=PROVIDERS, **more), its)


@dataclass(frozen=True)
class Row:
    """A fault: `what` explains it, `must` says what must hold, `run` does it and checks."""

    what: str
    must: str
    run: Callable[[Deployment, Result], None]
    settings: dict[str, str] = field(default_factory=dict)


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
}
"""Besides what it says, no row may lose a token that was acknowledged."""
