"""Documents of upstreams: kept, fetched again in time, and never the reason for a flood or a long wait."""

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
from tests.providers.conftest import Clock
from tests.upstream.authority import authority
from tests.upstream.deadlines import LONG, hasty_if_slow
from tests.upstream.https import HTTPSServer, Reply
from tests.waiting import PATIENCE, wait_until


def read(body: bytes) -> list[str]:
    if body == b"nonsense":
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "it is no document")
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


def outage(call: Callable[[], Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamUnavailable) as raised:
        call()
    return raised.value.failure


def test_it_is_fetched_once_and_then_kept(server: HTTPSServer, keys: Document[list[str]]) -> None:
    assert [keys.current() for _ in range(5)] == [["one"]] * 5
    assert len(server.asked) == 1
    assert keys.health.good_at
    assert keys.health.failure is None


def test_the_same_source_is_the_same_document_and_another_tenants_is_another(server: HTTPSServer) -> None:
    here = document(source(server), read)
    assert document(source(server), read) is here
    assert document(Source("sunrise", f"{server.url}/keys", 3.0, authority().certificate), read) is not here


def test_prepared_it_is_there_before_it_is_asked_for(server: HTTPSServer, keys: Document[list[str]]) -> None:
    keys.prepare()
    wait_until(lambda: keys.health.good_at is not None, "it is not fetched")
    keys.prepare()
    assert keys.current() == ["one"]
    assert len(server.asked) == 1


def test_in_use_it_is_renewed_in_the_background_before_it_is_too_old(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    keys.current()
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"two", wait=released)
    clock.ahead = documents.EARLY - 5
    assert keys.current() == ["one"]
    assert len(server.asked) == 1
    clock.ahead = documents.EARLY + 1
    assert keys.current() == ["one"], "nobody waits for the new one"
    released.set()
    wait_until(lambda: keys.current() == ["two"], "it is not renewed")
    assert len(server.asked) == 2


def test_too_old_it_is_not_used_before_the_upstream_was_asked(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    keys.current()
    server.replies["/keys"] = Reply(200, b"two")
    clock.ahead = documents.FRESH_FOR + 1
    assert keys.current() == ["two"]


FAILURES = {
    "an error": (Reply(500, b"one"), UpstreamFailure.RESPONSE_INVALID),
    "not found": (Reply(404, b"one"), UpstreamFailure.RESPONSE_INVALID),
    "nothing": (Reply(204), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(301, b"one", {"Location": "/other"}), UpstreamFailure.RESPONSE_INVALID),
    "nonsense": (Reply(200, b"nonsense"), UpstreamFailure.RESPONSE_INVALID),
    "what crashes its reader": (Reply(200, b"poison"), UpstreamFailure.RESPONSE_INVALID),
    "too much": (Reply(200, b"x" * (documents.LIMIT + 1)), UpstreamFailure.RESPONSE_TOO_LARGE),
    "silence": (Reply(200, b"one", wait=threading.Event()), UpstreamFailure.TIMEOUT),
}


@pytest.mark.parametrize("case", FAILURES)
def test_while_the_upstream_fails_the_last_good_copy_serves_for_its_time_and_no_longer(
    server: HTTPSServer, case: str, clock: Clock
) -> None:
    keys = document(source(server), read)
    keys.current()
    server.replies["/keys"], expected = FAILURES[case]
    keys.source = replace(keys.source, deadline=hasty_if_slow(expected))
    clock.ahead = documents.FRESH_FOR + 1
    assert keys.current() == ["one"]
    wait_until(lambda: keys.health.failure is expected, "the outage is not noticed")
    assert [keys.current() for _ in range(5)] == [["one"]] * 5
    assert len(server.asked) <= 2, "within the gap nobody asks again"
    clock.ahead = documents.KEPT_FOR + 1
    assert outage(keys.current) is expected


@pytest.mark.parametrize("case", FAILURES)
def test_where_there_never_was_a_copy_the_outage_is_told_and_is_over_once_the_upstream_is_well(
    server: HTTPSServer, case: str, clock: Clock
) -> None:
    server.replies["/keys"], expected = FAILURES[case]
    keys = document(source(server, deadline=hasty_if_slow(expected)), read)
    assert outage(keys.current) is expected
    wait_until(lambda: keys.health.failure is expected, "the outage is not noticed")
    assert [outage(keys.current) for _ in range(5)] == [expected] * 5
    assert len(server.asked) <= 1, "within the gap nobody asks again"
    server.replies["/keys"] = Reply(200, b"one")
    keys.source = replace(keys.source, deadline=LONG)
    clock.ahead = documents.GAP + 1
    assert keys.current() == ["one"]
    assert keys.health.failure is None


def test_an_outage_that_many_are_told_keeps_nothing_of_any(
    server: HTTPSServer, keys: Document[list[str]]
) -> None:
    server.replies["/keys"] = Reply(500)

    def frames() -> int:
        with pytest.raises(UpstreamUnavailable) as raised:
            keys.current()
        return len(list(traceback.walk_tb(raised.value.__traceback__)))

    assert len({frames() for _ in range(5)}) == 1


def test_a_machine_without_a_thread_to_spare_fetches_later(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        keys.prepare()
        assert outage(keys.current) is UpstreamFailure.OVERLOADED
    clock.ahead = documents.GAP + 1
    assert keys.current() == ["one"]


def test_where_there_was_no_room_for_a_fetch_the_next_comes_soon(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    with ExitStack() as full:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM):
            full.enter_context(bulkhead.background.slot(server.address))
        keys.prepare()
        wait_until(lambda: keys._fetch is None, "the fetch does not end")
    assert keys.health.failure is UpstreamFailure.OVERLOADED
    clock.ahead = documents.BUSY_GAP + 0.1
    assert keys.current() == ["one"]


def test_what_is_missing_is_looked_for_once_and_then_not_before_the_gap_is_over(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    old = keys.current()
    server.replies["/keys"] = Reply(200, b"two")
    assert keys.refreshed(old) is old, "it was fetched just now"
    clock.ahead = documents.GAP + 1
    assert keys.refreshed(old) == ["two"]
    assert keys.refreshed(old) == ["two"], "somebody else has fetched it meanwhile"
    assert [keys.refreshed(keys.current()) for _ in range(20)] == [["two"]] * 20
    assert len(server.asked) == 2


def test_a_flood_of_unknown_keys_makes_one_fetch_and_few_wait_for_it(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    old = keys.current()
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"two", wait=released)
    clock.ahead = documents.GAP + 1
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(keys.refreshed(old))) for _ in range(40)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(found) >= 30, "more wait than may")
    assert all(one is old for one in found), "whoever has no place to wait hears at once"
    released.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ["two"] in found
    assert len(server.asked) == 2


def test_while_the_upstream_is_away_an_unknown_key_stays_unknown(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    old = keys.current()
    server.replies["/keys"] = Reply(503)
    clock.ahead = documents.GAP + 1
    assert keys.refreshed(old) is old
    assert keys.current() is old


def test_a_caller_who_has_less_time_waits_less(server: HTTPSServer, keys: Document[list[str]]) -> None:
    released = threading.Event()
    server.replies["/keys"] = Reply(200, b"one", wait=released)
    assert outage(lambda: keys.current(wait=0.05)) is UpstreamFailure.TIMEOUT, (
        "while the upstream has not answered"
    )
    released.set()
    assert keys.current() == ["one"]


def test_whoever_listens_hears_of_each_fetch_good_or_bad(
    server: HTTPSServer, keys: Document[list[str]], clock: Clock
) -> None:
    heard: list[Any] = []

    def listen(document: Document[Any], **_: Any) -> None:
        heard.append((document.source.tenant, document.health.failure))
        raise RuntimeError("a listener that fails changes nothing")

    fetched.connect(listen)
    try:
        keys.current()
        wait_until(lambda: len(heard) == 1, "it does not hear")  # nobody waits for those who listen
        server.replies["/keys"] = Reply(500)
        clock.ahead = documents.GAP + 1
        keys.refreshed(keys.current())
        wait_until(lambda: len(heard) == 2, "it does not hear of the second")
    finally:
        fetched.disconnect(listen)
    assert heard == [("nagra", None), ("nagra", UpstreamFailure.RESPONSE_INVALID)]


def test_fetched_on_demand_it_tells_what_is_wrong(server: HTTPSServer, keys: Document[list[str]]) -> None:
    assert keys.fetch_now() == ["one"]
    server.replies["/keys"] = Reply(200, b"nonsense")
    with pytest.raises(UpstreamUnavailable, match="it is no document"):
        keys.fetch_now()
    assert keys.health.failure is UpstreamFailure.RESPONSE_INVALID
    assert keys.current() == ["one"]
