"""Documents of upstreams: caching, refreshing, and limits on requests and waiting."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import Document, Source, bulkhead, document, documents
from providers.upstream.documents import fetched
from tests.support.clock import StoppedClock
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG, deadline_for
from tests.support.upstream.https import HTTPSServer, Reply
from tests.support.waiting import PATIENCE, wait_until


def read(body: bytes) -> list[str]:
    if body == b"nonsense":
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "it is not a document")
    if body == b"poison":
        raise RecursionError
    return [body.decode()]


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = Reply(200, b"one")
        yield running


@pytest.fixture
def keys(server: HTTPSServer) -> Document[list[str]]:
    return document(source(server), read)


def source(server: HTTPSServer, **changes: Any) -> Source:
    given = {"deadline": LONG, "ca_certificates": authority().certificate, **changes}
    return Source("nagra", f"{server.url}/keys", **given)


def get_failure(call: Callable[[], Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamUnavailable) as raised:
        call()
    return raised.value.failure


def test_a_document_is_fetched_once_and_cached(server: HTTPSServer, keys: Document[list[str]]) -> None:
    assert [keys.current() for _ in range(5)] == [["one"]] * 5
    assert len(server.requests) == 1
    assert keys.health.good_at
    assert keys.health.failure is None


def test_equal_sources_share_a_document_and_tenants_do_not(server: HTTPSServer) -> None:
    here = document(source(server), read)
    assert document(source(server), read) is here
    assert document(Source("sunrise", f"{server.url}/keys", 3.0, authority().certificate), read) is not here


def test_prepare_fetches_the_document_before_its_first_use(
    server: HTTPSServer, keys: Document[list[str]]
) -> None:
    keys.prepare()
    wait_until(lambda: keys.health.good_at is not None, "it is not fetched")
    keys.prepare()
    assert keys.current() == ["one"]
    assert len(server.requests) == 1


def test_a_document_in_use_is_refreshed_in_the_background(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    keys.current()
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"two", wait=released)
    clock.ahead = documents.REFRESH_AGE - 5
    assert keys.current() == ["one"]
    assert len(server.requests) == 1
    clock.ahead = documents.REFRESH_AGE + 1
    assert keys.current() == ["one"], "requests do not wait for the fetch"
    released.set()
    wait_until(lambda: keys.current() == ["two"], "it is not refreshed")
    assert len(server.requests) == 2


def test_an_expired_copy_is_fetched_again_before_use(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    keys.current()
    server.replies["/keys"] = Reply(200, b"two")
    clock.ahead = documents.MAX_AGE + 1
    assert keys.current() == ["two"]


FAILURES = {
    "an error": (Reply(500, b"one"), UpstreamFailure.RESPONSE_INVALID),
    "not found": (Reply(404, b"one"), UpstreamFailure.RESPONSE_INVALID),
    "an empty response": (Reply(204), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(301, b"one", {"Location": "/other"}), UpstreamFailure.RESPONSE_INVALID),
    "an invalid document": (Reply(200, b"nonsense"), UpstreamFailure.RESPONSE_INVALID),
    "a document that crashes the parser": (Reply(200, b"poison"), UpstreamFailure.RESPONSE_INVALID),
    "a large document": (Reply(200, b"x" * (documents.LIMIT + 1)), UpstreamFailure.RESPONSE_TOO_LARGE),
    "no response": (Reply(200, b"one", wait=threading.Event()), UpstreamFailure.TIMEOUT),
}


@pytest.mark.parametrize("case", FAILURES)
def test_while_the_upstream_fails_the_last_copy_is_used_until_its_maximum_age(
    server: HTTPSServer, case: str, clock: StoppedClock
) -> None:
    keys = document(source(server), read)
    keys.current()
    server.replies["/keys"], expected = FAILURES[case]
    keys.source = replace(keys.source, deadline=deadline_for(expected))
    clock.ahead = documents.MAX_AGE + 1
    assert keys.current() == ["one"]
    wait_until(lambda: keys.health.failure is expected, "the failure is not recorded")
    assert [keys.current() for _ in range(5)] == [["one"]] * 5
    assert len(server.requests) <= 2, "fetched again within the interval"
    clock.ahead = documents.MAX_STALE_AGE + 1
    assert get_failure(keys.current) is expected


@pytest.mark.parametrize("case", FAILURES)
def test_without_a_copy_the_failure_is_raised_until_the_upstream_recovers(
    server: HTTPSServer, case: str, clock: StoppedClock
) -> None:
    server.replies["/keys"], expected = FAILURES[case]
    keys = document(source(server, deadline=deadline_for(expected)), read)
    assert get_failure(keys.current) is expected
    wait_until(lambda: keys.health.failure is expected, "the failure is not recorded")
    assert [get_failure(keys.current) for _ in range(5)] == [expected] * 5
    assert len(server.requests) <= 1, "fetched again within the interval"
    server.replies["/keys"] = Reply(200, b"one")
    keys.source = replace(keys.source, deadline=LONG)
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert keys.current() == ["one"]
    assert keys.health.failure is None


def test_a_repeated_failure_does_not_accumulate_frames(
    server: HTTPSServer, keys: Document[list[str]]
) -> None:
    server.replies["/keys"] = Reply(500)

    def frames() -> int:
        with pytest.raises(UpstreamUnavailable) as raised:
            keys.current()
        return len(list(traceback.walk_tb(raised.value.__traceback__)))

    assert len({frames() for _ in range(5)}) == 1


def test_if_no_thread_can_be_started_the_fetch_is_retried_later(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        keys.prepare()
        assert get_failure(keys.current) is UpstreamFailure.OVERLOADED
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert keys.current() == ["one"]


def test_after_an_overload_the_fetch_is_retried_early(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    with ExitStack() as full:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM):
            full.enter_context(bulkhead.background.slot(server.address))
        keys.prepare()
        wait_until(lambda: keys._fetch is None, "the fetch does not end")
    assert keys.health.failure is UpstreamFailure.OVERLOADED
    clock.ahead = documents.OVERLOAD_RETRY_INTERVAL + 0.1
    assert keys.current() == ["one"]


def test_refresh_fetches_at_most_once_per_interval(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    old = keys.current()
    server.replies["/keys"] = Reply(200, b"two")
    assert keys.refresh(old) is old, "it was fetched just now"
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert keys.refresh(old) == ["two"]
    assert keys.refresh(old) == ["two"], "another caller has fetched it"
    assert [keys.refresh(keys.current()) for _ in range(20)] == [["two"]] * 20
    assert len(server.requests) == 2


def test_concurrent_refreshes_cause_one_fetch_and_few_wait(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    old = keys.current()
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"two", wait=released)
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(keys.refresh(old))) for _ in range(40)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(results) >= 30, "too many callers wait")
    assert all(one is old for one in results), "callers without a slot return immediately"
    released.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ["two"] in results
    assert len(server.requests) == 2


def test_refresh_returns_the_old_copy_if_the_upstream_is_unavailable(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    old = keys.current()
    server.replies["/keys"] = Reply(503)
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert keys.refresh(old) is old
    assert keys.current() is old


def test_current_waits_at_most_for_the_given_time(server: HTTPSServer, keys: Document[list[str]]) -> None:
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"one", wait=released)
    assert get_failure(lambda: keys.current(wait=0.05)) is UpstreamFailure.TIMEOUT, (
        "before the upstream responds"
    )
    released.set()
    assert keys.current() == ["one"]


def test_the_signal_is_sent_after_each_fetch(
    server: HTTPSServer, keys: Document[list[str]], clock: StoppedClock
) -> None:
    received: list[Any] = []

    def receiver(document: Document[Any], **_: Any) -> None:
        received.append((document.source.tenant, document.health.failure))
        raise RuntimeError("an error in a receiver")

    fetched.connect(receiver)
    try:
        keys.current()
        wait_until(
            lambda: len(received) == 1, "the signal is not sent"
        )  # it is sent after waiting callers return
        server.replies["/keys"] = Reply(500)
        clock.ahead = documents.MIN_FETCH_INTERVAL + 1
        keys.refresh(keys.current())
        wait_until(lambda: len(received) == 2, "the second signal is not sent")
    finally:
        fetched.disconnect(receiver)
    assert received == [("nagra", None), ("nagra", UpstreamFailure.RESPONSE_INVALID)]


def test_fetch_now_raises_the_failure(server: HTTPSServer, keys: Document[list[str]]) -> None:
    assert keys.fetch_now() == ["one"]
    server.replies["/keys"] = Reply(200, b"nonsense")
    with pytest.raises(UpstreamUnavailable, match="it is not a document"):
        keys.fetch_now()
    assert keys.health.failure is UpstreamFailure.RESPONSE_INVALID
    assert keys.current() == ["one"]
