"""Each metric that an alert or a panel names exists, and moves when something happens."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from ags.operations.purge_counts import OVERDUE
from ags.server.worker import RESERVED_FILES
from ags.sessions.models import Lease
from providers.upstream.bulkhead import MAX_CALLS_PER_UPSTREAM
from tenants.models import Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.configuration_version import rename, stopped
from tests.support.fragile_postgresql import PostgreSQL
from tests.support.live import CREATE_OPERATOR, ForwardingProxy, wait_until_served
from tests.support.metrics import Samples, scrape, total
from tests.support.monitoring import named_metrics
from tests.support.moved_clock import HOUR, server_with_moved_clock
from tests.support.purge import PURGE_OFTEN, add_session_tokens
from tests.support.server import ServerProcess, run_manage
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import signer
from tests.support.upstream_services import PROVIDERS, add_introspection, add_signed_jwt, introspect
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

Labels = dict[str, dict[str, str]]

TRAFFIC: Labels = {
    "ags_requests_total": {"outcome": "answered"},
    "ags_request_duration_seconds_bucket": {"endpoint": "/ags/getSessionToken"},
    "ags_key_tokens_total": {},
    "ags_batches_total": {"batch": "session_token"},
    "ags_batch_rows_total": {"batch": "session_token"},
    "ags_process_cpu_seconds_total": {},
    "ags_upstream_calls_total": {"outcome": "answered"},
    "ags_upstream_call_seconds_total": {},
    "ags_upstream_connections": {},
    "ags_document_good": {},
    "ags_document_fetched_timestamp_seconds": {},
    "ags_limited_requests_total": {"limit": "address"},
    "ags_omitted_refusals_total": {},
    "ags_database_connections": {},
}
"""With the labels that identify what the test causes."""

WAITING: Labels = {
    "ags_requests_in_flight": {},
    "ags_upstream_slots_taken": {"bulkhead": "foreground"},
    "ags_connections": {},
    "ags_process_open_fds": {},
}

LIMIT: Labels = {
    "ags_dropped_connections_total": {},
    "ags_process_resident_memory_bytes": {},
    "ags_processes": {},
}

OUTAGE = {
    "ags_database_outages_total",
    "ags_database_outage_seconds_total",
    "ags_database_available",
    "ags_event_loop_delay_seconds",
}

LOCKED = {"ags_waiting"}

CLOCK = {"ags_clock_difference_seconds", "ags_clock_differs"}

CONFIGURATION = {"ags_config_version", "ags_config_processes", "ags_config_processes_behind"}

PURGE = {"ags_purge_overdue", "ags_purge_success_timestamp_seconds", "ags_purged_rows_total", "ags_rows"}

CONSTANT = {"ags_build_info"}


def test_every_named_metric_is_in_a_test() -> None:
    stored = CLOCK | CONFIGURATION | PURGE
    assert named_metrics() == {*TRAFFIC, *WAITING, *LIMIT, *OUTAGE, *LOCKED, *stored, *CONSTANT}


def unmoved(before: Samples, after: Samples, metrics: Labels) -> list[str]:
    """Return the metrics that have not risen."""
    return [
        name
        for name, labels in metrics.items()
        if total(after, name, **labels) <= total(before, name, **labels)
    ]


@contextmanager
def measured_server(port: int, **changes: str) -> Iterator[ServerProcess]:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}", **changes) as server:
        yield server


def test_metrics_of_traffic(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    with (
        HTTPSServer() as upstream,
        measured_server(
            port, AGS_PROVIDERS=f"{PROVIDERS},providers.signed_jwt", AGS_TRUSTED_PROXIES="1"
        ) as server,
    ):
        before = scrape(port)
        assert total(before, "ags_build_info") == 1
        Tenant.objects.filter(pk=nagra.tenant_id).update(max_failures_per_address=64)
        upstream.replies["/introspect"] = as_json(
            {"active": True, "sub": "account-1", "token_type": "Bearer"}
        )
        upstream.replies["/keys"] = as_json({"keys": [signer("ES256").jwk()]})
        here = replace(nagra, client=ForwardingProxy(server, "192.0.2.1"))
        add_introspection(here, upstream)
        add_signed_jwt(here, upstream)
        wait_until(lambda: introspect(here).status_code == 200, "the service is not offered")
        assert ClientApp(here).sign_on().status_code == 201
        for number in range(70):  # more than are stored of one address
            assert here.present("a.b.c").status_code == (401 if number < 65 else 429)
        wait_until(lambda: total(scrape(port), "ags_document_good") == 1, "the document is not fetched")
        after = scrape(port)
        assert not unmoved(before, after, TRAFFIC)


def test_metrics_of_requests_that_wait(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    others = threading.Event()
    response = as_json({"active": True, "sub": "account-1", "token_type": "Bearer"})
    with (
        HTTPSServer() as upstream,
        measured_server(port, AGS_PROVIDERS=PROVIDERS) as server,
        ThreadPoolExecutor(MAX_CALLS_PER_UPSTREAM) as callers,
    ):
        upstream.replies["/introspect"] = Reply(200, response.body, response.headers, wait=others)
        add_introspection(nagra, upstream)
        here = wait_until_served(server, nagra)
        before = scrape(port)
        calls = [callers.submit(introspect, here) for _ in range(MAX_CALLS_PER_UPSTREAM)]
        try:
            wait_until(
                lambda: total(scrape(port), "ags_upstream_slots_taken") == MAX_CALLS_PER_UPSTREAM,
                "the calls are not shown",
            )
            during = scrape(port)
        finally:
            others.set()
        assert {call.result(PATIENCE).status_code for call in calls} == {200}
        assert not unmoved(before, during, WAITING)
        # The request for the metrics is in flight, too.
        assert total(during, "ags_requests_in_flight") >= MAX_CALLS_PER_UPSTREAM + 1
        wait_until(
            lambda: total(scrape(port), "ags_upstream_slots_taken") == 0,
            "the calls are shown after their end",
        )


def test_metrics_of_a_locked_table(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    seen = threading.Event()

    def call() -> None:
        while not seen.is_set():
            here.present(here.token())

    with measured_server(port) as server, ThreadPoolExecutor(6) as callers:
        here = wait_until_served(server, nagra)
        assert total(scrape(port), "ags_waiting") == 0
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ags_sessions_sessiontoken IN ACCESS EXCLUSIVE MODE")
            calls = [callers.submit(call) for _ in range(6)]
            try:
                wait_until(lambda: total(scrape(port), "ags_waiting", queue="batches") > 0, "nothing waits")
            finally:
                seen.set()
        for each in calls:
            each.result(PATIENCE)
        wait_until(lambda: total(scrape(port), "ags_waiting") == 0, "something waits")


def test_metrics_of_a_limit_of_a_process(transactional_db: None, port: int) -> None:
    with measured_server(port, AGS_WORKERS="2") as server, ExitStack() as held:
        wait_until(lambda: total(scrape(port), "ags_processes") == 2, "not all processes are counted")
        both = scrape(port)
        few = RESERVED_FILES + 20
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, few))
        workers = set(server.workers())
        for worker in workers:
            os.kill(worker, signal.SIGKILL)  # the next workers have that limit
        wait_until(lambda: len(set(server.workers()) - workers) == 2, "no worker starts")
        for _ in range(60):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
        wait_until(
            lambda: not unmoved(both, scrape(port), {"ags_dropped_connections_total": {}}), "none is dropped"
        )
        memory = total(both, "ags_process_resident_memory_bytes")
        assert memory > 2 * 20_000_000, "the sum of two processes"


def test_metrics_of_an_outage(port: int) -> None:
    pg = PostgreSQL()
    try:
        for command in (("migrate", "-v0"), ("shell", "-v0", "-c", CREATE_OPERATOR)):
            assert run_manage(*command, DATABASE_URL=pg.url).returncode == 0
        with measured_server(port, DATABASE_URL=pg.url) as server, ThreadPoolExecutor(6) as callers:
            here = wait_until_served(
                server, HeadEnd("nagra", "nagra-key-1", bytes(range(1, 33)), client=server)
            )
            assert total(scrape(port), "ags_database_available") == 1
            assert total(scrape(port), "ags_event_loop_delay_seconds") >= 0
            pg.signal_all(signal.SIGSTOP)
            wait_until(pg.is_frozen, "PostgreSQL does not freeze")
            calls = [callers.submit(lambda: here.present(here.token()).status_code) for _ in range(6)]
            assert 503 in {call.result(PATIENCE) for call in calls}
            wait_until(lambda: total(scrape(port), "ags_database_available") == 0, "the outage is not shown")
            during = scrape(port)
            pg.signal_all(signal.SIGCONT)
            wait_until(lambda: total(scrape(port), "ags_database_available") == 1, "the end is not shown")
            after = scrape(port)
            assert (
                total(during, "ags_database_outages_total") == total(after, "ags_database_outages_total") == 1
            )
            seconds = "ags_database_outage_seconds_total"
            assert 0 < total(during, seconds) < total(after, seconds)
    finally:
        pg.signal_all(signal.SIGCONT)
        pg.remove()


def test_metrics_of_a_wrong_clock(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    difference = "ags_clock_difference_seconds"
    with server_with_moved_clock(-HOUR, AGS_OPERATIONS_BIND=f"127.0.0.1:{port}"):
        wait_until(lambda: total(scrape(port), difference) > 0, "the clock is not measured")
        assert abs(total(scrape(port), difference) - HOUR) < PATIENCE
        assert total(scrape(port), "ags_clock_differs") == 1
    with measured_server(port):
        assert total(scrape(port), difference) < PATIENCE
        assert total(scrape(port), "ags_clock_differs") == 0


def test_metrics_of_a_change_of_the_configuration(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    with measured_server(port):
        wait_until(lambda: total(scrape(port), "ags_config_processes") == 1, "the process is not counted")
        before = total(scrape(port), "ags_config_version")
        with ServerProcess() as other:
            wait_until(lambda: total(scrape(port), "ags_config_processes") == 2, "the process is not counted")
            (worker,) = other.workers()
            with stopped(worker):
                rename(nagra.tenant_id)
                wait_until(
                    lambda: total(scrape(port), "ags_config_version") > before, "the change is not served"
                )
                wait_until(lambda: total(scrape(port), "ags_config_processes_behind") == 1, "none is behind")
            wait_until(lambda: total(scrape(port), "ags_config_processes_behind") == 0, "one is behind")


def test_metrics_of_the_purge(transactional_db: None, nagra: HeadEnd, port: int) -> None:
    tokens = {"kind": "session tokens"}
    with measured_server(port) as server:
        before = scrape(port)
        assert total(before, "ags_purge_success_timestamp_seconds") == 0
        assert total(before, "ags_purge_overdue") == 0
        wait_until_served(server, nagra)
    add_session_tokens(nagra, 20, seconds=60)
    with measured_server(port, **PURGE_OFTEN):
        wait_until(lambda: total(scrape(port), "ags_purged_rows_total", **tokens) == 20, "no row is purged")
        wait_until(
            lambda: total(scrape(port), "ags_purge_success_timestamp_seconds") > 0, "no purge succeeds"
        )
        wait_until(
            lambda: total(scrape(port), "ags_rows", state="alive", **tokens) == 1, "the rows are not counted"
        )
        assert total(scrape(port), "ags_rows", state="dead", **tokens) == 0
    Lease.objects.update(due_at=Now() - OVERDUE)
    with measured_server(port):
        assert total(scrape(port), "ags_purge_overdue") == 1
