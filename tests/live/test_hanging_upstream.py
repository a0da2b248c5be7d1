"""A hanging upstream: its callers get an error in time, and other requests are not affected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from providers.upstream.bulkhead import MAX_CALLS_PER_UPSTREAM
from tests.support.clients import HeadEnd
from tests.support.live import get_server, use_server, wait_until_served
from tests.support.server import ServerProcess
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream_services import PROVIDERS, add_introspection, introspect
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

CALLERS = 3 * MAX_CALLS_PER_UPSTREAM


@pytest.fixture
def upstream() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


@pytest.fixture
def upstream_server(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server with a provider that uses upstreams."""
    return get_server(servers, "upstream_server", AGS_PROVIDERS=PROVIDERS, AGS_LOG_LEVEL="INFO")


def test_other_requests_do_not_wait_for_a_hanging_upstream(
    upstream_server: ServerProcess, nagra: HeadEnd, upstream: HTTPSServer
) -> None:

    # The upstream responds only after the other requests are done, so they cannot have waited for it.
    others_are_done = threading.Event()
    response = as_json({"active": True, "sub": "account-1", "token_type": "Bearer"})
    upstream.replies["/introspect"] = Reply(200, response.body, response.headers, wait=others_are_done)
    add_introspection(nagra, upstream, deadline=10)
    here = wait_until_served(upstream_server, nagra)
    with ThreadPoolExecutor(CALLERS) as callers:
        waiting = [callers.submit(introspect, use_server(upstream_server, nagra)) for _ in range(CALLERS)]
        try:
            wait_until(
                lambda: len(upstream.requests) == MAX_CALLS_PER_UPSTREAM,
                "the maximum number of calls is not reached",
            )
            wait_until(
                lambda: sum(call.done() for call in waiting) == CALLERS - MAX_CALLS_PER_UPSTREAM,
                "calls over the maximum wait",
            )
            for _ in range(3):
                assert here.present(here.token()).status_code == 200
            rejected = [call.result() for call in waiting if call.done()]
            assert len(rejected) == CALLERS - MAX_CALLS_PER_UPSTREAM, "a waiting call has ended"
        finally:
            others_are_done.set()
        results = [call.result(PATIENCE) for call in waiting]
    assert {call.status_code for call in rejected} == {503}
    assert {call.headers["Retry-After"] for call in rejected} == {"1"}
    assert sorted(call.status_code for call in results) == [200] * MAX_CALLS_PER_UPSTREAM + [503] * len(
        rejected
    )
    assert len(upstream.requests) == MAX_CALLS_PER_UPSTREAM


def test_timeout_of_an_upstream_is_503_and_logged(
    upstream_server: ServerProcess, nagra: HeadEnd, upstream: HTTPSServer
) -> None:
    upstream.replies["/introspect"] = Reply(200, b"", wait=threading.Event())
    add_introspection(nagra, upstream, deadline=0.3)
    here = wait_until_served(upstream_server, nagra)
    response = introspect(here)
    assert (response.status_code, response.json()["reason"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"
    assert here.present(here.token()).status_code == 200
    assert upstream_server.request_line(response.headers["x-correlation-id"])["reason"] == "upstream_slow"
