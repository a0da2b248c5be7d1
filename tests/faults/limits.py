"""Faults of the limits: a flood of refused requests, a large head-end, and Redis."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from itertools import cycle
from uuid import uuid4

from ags.sessions.services.refusals import MAX_PER_ADDRESS, MAX_PER_MINUTE
from bench.systems import asking
from tenants.models.tenant import DEFAULT_MAX_FAILURES
from tests.faults.checks import BESIDE, WARM_UP, Result, check_good_traffic, check_no_failure, warm_up
from tests.faults.configuration import set_up
from tests.faults.deployment import LAST_EVENT, OMITTED_REFUSALS, STORED_REFUSALS, WORKERS, Deployment
from tests.faults.traffic import open_loop_load, traffic
from tests.support.upstream.redis_server import RedisServer

REFUSED = 50_000
"""Requests of the flood."""

ADDRESSES = [f"203.0.113.{number}" for number in range(1, 201)]
"""Clients whose requests are refused."""

SHARES = [50, *[1] * 199]
"""Of each: the first sends a fifth of all."""

MAX_FAILURES = 50
"""Of a client address in 10 seconds in the flood. Only the first exceeds it."""

HEAD_END = 300.0
"""Requests of a head-end in a second."""

HEAD_END_SECONDS = 20.0

DELAY = 50.0
"""Milliseconds by which a failure of Redis may delay requests, at p99."""

UNAVAILABLE = '"Redis is unavailable"'


def flood(deployment: Deployment, result: Result) -> None:
    """Send refused requests from many addresses beside good ones, and count what the audit trail has."""
    wrong = (open_loop_load, [deployment.proxy], deployment.rate, wrong_proof)
    set_up(deployment.database, max_failures_per_address=MAX_FAILURES)
    (last,) = deployment.query(LAST_EVENT)
    try:
        with deployment.traffic([deployment.proxy]) as samples:
            usual = warm_up()
            began = time.monotonic()
            with traffic(flood=wrong) as beside:
                time.sleep(REFUSED / deployment.rate + 1)  # until the process of the flood has started
            ended = time.monotonic()
    finally:
        set_up(deployment.database, max_failures_per_address=DEFAULT_MAX_FAILURES)
    check_good_traffic(result, samples, usual, began, ended)
    refused = beside["flood"]
    result.check(
        len(refused) >= REFUSED and {one.status for one in refused} == {401, 429},
        f"{len(refused)} refused in {ended - began:.0f} s ({refused.statuses()})",
    )
    check_audit_trail(result, deployment, last, len(refused), ended - began)


def check_audit_trail(
    result: Result, deployment: Deployment, last: int, refused: int, seconds: float
) -> None:
    """Check that so many refusals are stored or counted since the last event before, and few are stored."""
    counted = sum(gateway.count_omitted_refusals() for gateway in deployment.gateways)
    for gateway in deployment.gateways:
        gateway.restart()  # stores what is queued
    stored = deployment.query(STORED_REFUSALS, last)
    (omitted,) = deployment.query(OMITTED_REFUSALS, last)
    windows = (int(seconds // 60) + 1) * WORKERS * len(deployment.gateways)
    for what, number, most in (
        ("stored", sum(stored), windows * MAX_PER_MINUTE),
        ("of one address", max(stored, default=0), windows * MAX_PER_ADDRESS),
    ):
        result.check(0 < number <= most, f"{number} {what}, at most {most}")
    result.check(
        sum(stored) + omitted == refused and omitted == counted,
        f"{omitted} counted in events, {counted} in the metric, {refused - sum(stored) - omitted} missing",
    )


def one_address(deployment: Deployment, result: Result) -> None:
    """Send the good requests of a large head-end. The tenant has the default limits."""
    deployment.rate = HEAD_END
    with deployment.traffic([deployment.proxy]) as samples:
        time.sleep(WARM_UP)
        began = time.monotonic()
        time.sleep(HEAD_END_SECONDS)
        ended = time.monotonic()
    good = samples["good"]
    limited = sum(one.status == 429 for one in good)
    result.check(not limited, f"{limited} of {len(good)} limited ({good.statuses()})")
    served = sum(one.status == 200 and began <= one.due + one.seconds < ended for one in good)
    result.note(f"{served / HEAD_END_SECONDS:.0f} served per second of {HEAD_END:.0f}")


def redis_fails(
    deployment: Deployment,
    result: Result,
    fail: Callable[[RedisServer], None],
    repair: Callable[[RedisServer], None],
) -> None:
    """Let Redis fail and return, beside requests that are counted there and others."""
    assert deployment.redis is not None
    rate = deployment.rate / 4
    accounts = cycle([f"account-{number}" for number in range(math.ceil(rate))])  # each once a second
    counted = {
        "wrong": (open_loop_load, [deployment.proxy], rate, wrong_proof),
        "repeated": (open_loop_load, [deployment.proxy], rate, lambda: request_again(next(accounts))),
    }
    with deployment.traffic([deployment.proxy], **counted) as samples:
        usual = warm_up()
        keys, outages = deployment.redis.list_keys(), deployment.count_logged(UNAVAILABLE)
        began = time.monotonic()
        fail(deployment.redis)
        time.sleep(BESIDE)
        repair(deployment.redis)
        time.sleep(WARM_UP)
        ended = time.monotonic()
    check_no_failure(result, samples)
    for name in ("good", *counted):
        before, beside = samples[name].between(usual, began), samples[name].between(began, ended)
        result.check(
            beside.percentile(0.99) <= before.percentile(0.99) + DELAY,
            f"{name}: p99 {beside.percentile(0.99):.0f} ms, before {before.percentile(0.99):.0f}",
        )
    uses = [sum(f":{limit}/" in key for key in keys) for limit in ("address", "account")]
    result.check(all(uses), f"{uses[0]} addresses and {uses[1]} accounts counted in Redis before")
    logged, processes = deployment.count_logged(UNAVAILABLE) - outages, WORKERS * len(deployment.gateways)
    result.check(logged >= processes, f"{logged} outages logged by {processes} processes, {outages} before")


def wrong_proof() -> bytes:
    """Return a request with a wrong signature, from one of the addresses."""
    (address,) = random.choices(ADDRESSES, SHARES)
    token = asking.operator_token(str(uuid4())).rpartition(".")[0] + "." + "A" * 43
    request = asking.get_session_token(token=token)
    return request.replace(b"\r\nHost:", b"\r\nX-Forwarded-For: %b\r\nHost:" % address.encode(), 1)


def request_again(account: str) -> bytes:
    """Return a good request for an account that may have other session tokens."""
    return asking.get_session_token(token=asking.operator_token(account))
