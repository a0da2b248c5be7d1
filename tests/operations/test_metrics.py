"""`GET /metrics`, on the operations port only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from ags.database import run_with_orm
from ags.operations.metrics import stored
from providers.contract import UpstreamUnavailable
from providers.upstream import Document, Source, document
from tenants.models import DocumentHealth
from tests.support.clients import HeadEnd
from tests.support.event_loop import open_application, run_in_event_loop, wait_until_async
from tests.support.paths import ROOT
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG
from tests.support.upstream.https import HTTPSServer, Reply


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = Reply(200, b"{}")
        yield running


def fetch(server: HTTPSServer, tenant: str = "nagra") -> None:
    """Fetch in the thread of the test, and so in its transaction."""
    source = Source(tenant, f"{server.url}/keys", LONG, authority().certificate)
    fetched: Document[bytes] = document(source, bytes)
    with contextlib.suppress(UpstreamUnavailable):
        fetched.fetch_now()


def lines() -> list[str]:
    answer = Client().get("/metrics", **{"ags.operations": True})  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return [line for line in answer.content.decode().splitlines() if line.startswith("ags_document_")]


def test_the_metrics_show_the_result_of_the_latest_fetch(nagra: HeadEnd, server: HTTPSServer) -> None:
    assert lines() == []
    labels = f'{{document="{server.url}/keys",tenant="nagra"}}'
    before = datetime.now(UTC).timestamp()
    fetch(server)
    after = datetime.now(UTC).timestamp()
    good, fetched = lines()
    assert good == f"ags_document_good{labels} 1.0"
    assert before <= float(fetched.split()[1]) <= after
    server.replies["/keys"] = Reply(500)
    fetch(server)
    assert lines() == [f"ags_document_good{labels} 0.0", fetched]
    row = DocumentHealth.objects.for_tenant("nagra").get()
    assert row.trouble == "it responds with 500"
    server.replies["/keys"] = Reply(200, b"{}")
    fetch(server)
    assert lines()[0] == f"ags_document_good{labels} 1.0"
    row.refresh_from_db()
    assert row.failed_at is not None, "the time of the latest failure is kept"


def test_a_document_that_was_never_fetched_is_not_good(nagra: HeadEnd, server: HTTPSServer) -> None:
    server.replies["/keys"] = Reply(404)
    fetch(server)
    labels = f'{{document="{server.url}/keys",tenant="nagra"}}'
    assert lines() == [
        f"ags_document_good{labels} 0.0",
        f"ags_document_fetched_timestamp_seconds{labels} 0.0",
    ]


def test_metrics_omit_the_query_of_an_address(nagra: HeadEnd) -> None:
    for query, trouble in (("key=marker1", ""), ("key=marker2", "it responds with 500")):
        DocumentHealth(tenant_id="nagra", address=f"https://a.example/keys?{query}", trouble=trouble).save()
    labels = '{document="https://a.example/keys",tenant="nagra"}'
    assert lines() == [
        f"ags_document_good{labels} 0.0",
        f"ags_document_fetched_timestamp_seconds{labels} 0.0",
    ]


def test_the_number_of_time_series_is_limited(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_DOCUMENTS", 3)
    for number in range(5):
        DocumentHealth(tenant_id="nagra", address=f"https://a.example/{number}").save()
    assert len(lines()) == 6


def test_every_metric_is_explained(nagra: HeadEnd) -> None:
    page = Client().get("/metrics", **{"ags.operations": True}).content.decode()  # type: ignore[arg-type]
    exposed = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    assert {"ags_document_good", "ags_limited_requests_total", "ags_requests_total"} <= exposed
    section = (ROOT / "docs" / "running" / "on-call.md").read_text().split("\n## Metrics\n")[1]
    rows = re.findall(r"^\| (`ags_.*?) \| ", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(ags_\w+)", row)} == exposed


def test_metrics_are_only_served_on_the_operations_port(nagra: HeadEnd) -> None:
    answer = nagra.client.get("/metrics", headers={"ags.operations": "True", "host": "testserver:9100"})
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")


def test_an_unavailable_database_does_not_fail_a_fetch(
    nagra: HeadEnd, server: HTTPSServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def unavailable(*_: Any) -> None:
        raise OperationalError

    with connection.execute_wrapper(unavailable):
        fetch(server)
    assert [record.getMessage() for record in caplog.records] == [
        "health of a document not stored: OperationalError"
    ]
    assert server.requests


@pytest.mark.django_db(transaction=True)
def test_the_result_for_an_unknown_tenant_is_ignored(nagra: HeadEnd, server: HTTPSServer) -> None:
    fetch(server, tenant="nobody")
    assert not DocumentHealth.objects.for_tenant("nagra").exists()


@pytest.mark.django_db(transaction=True)
def test_an_event_loop_stores_results_through_its_own_connection(
    nagra: HeadEnd, server: HTTPSServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    threads: list[str] = []

    def note(execute: Any, sql: str, *args: Any) -> Any:
        try:
            if server.replies["/keys"] == Reply(500):
                raise OperationalError
            return execute(sql, *args)
        finally:
            threads.append(threading.current_thread().name)

    def fetch_without_connection() -> bool:
        fetch(server)
        return connection.connection is None

    async def test() -> None:
        async with open_application():
            await run_with_orm(lambda: connection.execute_wrappers.append(note))
            with ThreadPoolExecutor(1, "fetching") as pool:
                assert await asyncio.wrap_future(pool.submit(fetch_without_connection))
                await wait_until_async(lambda: threads, "the result is not stored")
                await run_with_orm(lambda: None)  # the same thread, when it has executed all statements
                server.replies["/keys"] = Reply(500)
                assert await asyncio.wrap_future(pool.submit(fetch_without_connection))
                await wait_until_async(lambda: caplog.records, "the error is not logged")
            assert set(threads) == {"configuration_0"}

    run_in_event_loop(test())
    assert DocumentHealth.objects.for_tenant("nagra").get().trouble == ""
    assert [record.getMessage() for record in caplog.records] == [
        "health of a document not stored: OperationalError"
    ]
