"""An upstream that hangs: its callers hear so in time, and nobody else notices. For speed, see bench/."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from providers.upstream.bulkhead import MAX_CALLS_PER_UPSTREAM
from tenants.models import Service
from tests.conftest import HeadEnd
from tests.live.conftest import at, started, warm
from tests.live.server import ServerProcess
from tests.upstream.authority import authority
from tests.upstream.https import HTTPSServer, Reply, as_json
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

PROVIDERS = "providers.operator_token,providers.token_introspection"
CALLERS = 3 * MAX_CALLS_PER_UPSTREAM
HANGING = "Hanging"


@pytest.fixture
def upstream() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


@pytest.fixture
def asking(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server of one process, with a provider that asks upstreams."""
    return started(servers, "asking", AGS_PROVIDERS=PROVIDERS, AGS_LOG_LEVEL="INFO")


def service(head_end: HeadEnd, upstream: HTTPSServer, deadline: float) -> None:
    Service(
        tenant_id=head_end.tenant_id,
        name=HANGING,
        strategy="token_introspection",
        display_name="x",
        enabled=True,
        settings={
            "address": f"{upstream.url}/introspect",
            "client_id": "ags",
            "client_secret": "a secret",
            "deadline": deadline,
            "ca_certificates": authority().certificate,
        },
    ).save()


def present(head_end: HeadEnd) -> Any:
    body = {"parameters": [{"name": "AccessToken", "value": "an-access-token"}]}
    return head_end.post(body, x_auth_service_id=HANGING)


def test_while_callers_wait_for_it_every_other_request_is_answered(
    asking: ServerProcess, nagra: HeadEnd, upstream: HTTPSServer
) -> None:
    """The upstream answers only after the others were: had they waited for it, nobody would be done."""
    others_are_done = threading.Event()
    answer = as_json({"active": True, "sub": "account-1", "token_type": "Bearer"})
    upstream.replies["/introspect"] = Reply(200, answer.body, answer.headers, wait=others_are_done)
    service(nagra, upstream, deadline=10)
    here = warm(asking, nagra)
    with ThreadPoolExecutor(CALLERS) as callers:
        waiting = [callers.submit(present, at(asking, nagra)) for _ in range(CALLERS)]
        try:
            wait_until(lambda: len(upstream.asked) == MAX_CALLS_PER_UPSTREAM, "as many wait as may")
            wait_until(
                lambda: sum(one.done() for one in waiting) == CALLERS - MAX_CALLS_PER_UPSTREAM,
                "the rest hear at once, while the first still wait",
            )
            for _ in range(3):
                assert here.present(here.token()).status_code == 200
            refused = [one.result() for one in waiting if one.done()]
            assert len(refused) == CALLERS - MAX_CALLS_PER_UPSTREAM, "those that wait still do"
        finally:
            others_are_done.set()
        answered = [one.result(PATIENCE) for one in waiting]
    assert {one.status_code for one in refused} == {503}
    assert {one.headers["Retry-After"] for one in refused} == {"1"}
    assert sorted(one.status_code for one in answered) == [200] * MAX_CALLS_PER_UPSTREAM + [503] * len(
        refused
    )
    assert len(upstream.asked) == MAX_CALLS_PER_UPSTREAM


def test_a_caller_hears_that_it_hangs_and_the_log_says_why(
    asking: ServerProcess, nagra: HeadEnd, upstream: HTTPSServer
) -> None:
    upstream.replies["/introspect"] = Reply(200, b"", wait=threading.Event())
    service(nagra, upstream, deadline=0.3)
    here = warm(asking, nagra)
    answer = present(here)
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert here.present(here.token()).status_code == 200
    assert '"reason": "upstream_slow"' in asking.log
