"""`GET /metrics`: the health of what is fetched, told on the operations port and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from ags.database import run_with_orm
from ags.operations import metrics
from providers.contract import UpstreamUnavailable
from providers.upstream import Document, Source, document
from tenants.models import DocumentHealth
from tests.conftest import HeadEnd
from tests.event_loop import eventually, run, serving
from tests.upstream.authority import authority
from tests.upstream.deadlines import LONG
from tests.upstream.https import HTTPSServer, Reply


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = Reply(200, b"{}")
        yield running


def fetch(server: HTTPSServer, tenant: str = "nagra") -> None:
    """Fetch in this thread, whose transaction the test can see into."""
    source = Source(tenant, f"{server.url}/keys", LONG, authority().certificate)
    its: Document[bytes] = document(source, bytes)
    with contextlib.suppress(UpstreamUnavailable):
        its.fetch_now()


def lines() -> list[str]:
    answer = Client().get("/metrics", **{"ags.operations": True})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return [line for line in answer.content.decode().splitlines() if not line.startswith("#")]


def test_a_document_that_was_fetched_is_good_and_one_that_fails_is_not(
    nagra: HeadEnd, server: HTTPSServer
) -> None:
    assert lines() == []
    of = f'{{document="{server.url}/keys",tenant="nagra"}}'
    before = datetime.now(UTC).timestamp()
    fetch(server)
    after = datetime.now(UTC).timestamp()
    good, fetched = lines()
    assert good == f"ags_document_good{of} 1.0"
    assert before <= float(fetched.split()[1]) <= after
    server.replies["/keys"] = Reply(500)
    fetch(server)
    assert lines() == [f"ags_document_good{of} 0.0", fetched]
    row = DocumentHealth.objects.for_tenant("nagra").get()
    assert row.trouble == "it answers 500"
    server.replies["/keys"] = Reply(200, b"{}")
    fetch(server)
    assert lines()[0] == f"ags_document_good{of} 1.0"
    row.refresh_from_db()
    assert row.failed_at is not None, "when it last failed stays known"


def test_one_that_never_came_is_not_good(nagra: HeadEnd, server: HTTPSServer) -> None:
    server.replies["/keys"] = Reply(404)
    fetch(server)
    of = f'{{document="{server.url}/keys",tenant="nagra"}}'
    assert lines() == [
        f"ags_document_good{of} 0.0",
        f"ags_document_fetched_timestamp_seconds{of} 0.0",
    ]


def test_the_query_of_an_address_is_not_told(nagra: HeadEnd) -> None:
    for query, trouble in (("key=marker1", ""), ("key=marker2", "it answers 500")):
        DocumentHealth(tenant_id="nagra", address=f"https://a.example/keys?{query}", trouble=trouble).save()
    of = '{document="https://a.example/keys",tenant="nagra"}'
    assert lines() == [f"ags_document_good{of} 0.0", f"ags_document_fetched_timestamp_seconds{of} 0.0"]


def test_no_more_time_series_are_made_than_a_prometheus_bears(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "DOCUMENTS_TOLD", 3)
    for number in range(5):
        DocumentHealth(tenant_id="nagra", address=f"https://a.example/{number}").save()
    assert len(lines()) == 6


def test_elsewhere_than_on_the_operations_port_there_is_no_such_address(nagra: HeadEnd) -> None:
    answer = nagra.client.get("/metrics", headers={"ags.operations": "True", "host": "testserver:9100"})
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")


def test_a_database_that_is_away_costs_the_fetch_nothing(
    nagra: HeadEnd, server: HTTPSServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def away(*_: Any) -> None:
        raise OperationalError

    with connection.execute_wrapper(away):
        fetch(server)
    assert [record.getMessage() for record in caplog.records] == [
        "health of a document not stored: OperationalError"
    ]
    assert server.asked


@pytest.mark.django_db(transaction=True)
def test_a_tenant_that_is_gone_is_no_matter(nagra: HeadEnd, server: HTTPSServer) -> None:
    fetch(server, tenant="nobody")
    assert not DocumentHealth.objects.for_tenant("nagra").exists()


@pytest.mark.django_db(transaction=True)
def test_where_a_loop_serves_requests_it_stores_the_outcome_over_its_own_connection(
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
        async with serving():
            await run_with_orm(lambda: connection.execute_wrappers.append(note))
            with ThreadPoolExecutor(1, "fetching") as pool:
                assert await asyncio.wrap_future(pool.submit(fetch_without_connection))
                await eventually(lambda: threads, "the outcome is not stored")
                server.replies["/keys"] = Reply(500)
                assert await asyncio.wrap_future(pool.submit(fetch_without_connection))
                await eventually(lambda: caplog.records, "what fails is not logged")
            assert set(threads) == {"configuration_0"}

    run(test())
    assert DocumentHealth.objects.for_tenant("nagra").get().trouble == ""
    assert [record.getMessage() for record in caplog.records] == [
        "health of a document not stored: OperationalError"
    ]
