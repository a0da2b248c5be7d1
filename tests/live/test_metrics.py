"""The metrics of a server with several processes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace

from ags.operations.metrics.values import OTHER
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.metrics import scrape, total
from tests.support.server import Client, ServerProcess
from tests.support.waiting import wait_until

Outcome = tuple[str, str]
"""The outcome of a request and the reason of its refusal."""


class Load:
    """Requests over new connections, and how many were sent."""

    def __init__(self, server: ServerProcess, head_end: HeadEnd) -> None:
        self.server, self.head_end = server, head_end
        self.sent: Counter[Outcome] = Counter()

    def send(self, number: int) -> None:
        for _ in range(number):
            connection = Client(self.server.port)
            here = replace(self.head_end, client=connection)
            assert here.present(here.token()).status_code == 200
            assert here.present(here.token(aud="another")).status_code == 401
            connection.close()
        self.sent["answered", ""] += number
        self.sent["refused", "audience_mismatch"] += number

    def is_counted(self, port: int) -> bool:
        """Whether the next process that accepts a connection has counted all that was sent."""
        samples = scrape(port)
        labels = {"endpoint": "/ags/getSessionToken", "tenant": self.head_end.tenant_id}
        counted = {
            (outcome, reason): total(
                samples, "ags_requests_total", outcome=outcome, reason=reason, service=SERVICE, **labels
            )
            for outcome, reason in self.sent
        }
        tokens = {
            outcome: total(
                samples,
                "ags_key_tokens_total",
                tenant=self.head_end.tenant_id,
                kid=self.head_end.kid,
                outcome=outcome,
            )
            for outcome, _ in self.sent
        }
        number = total(samples, "ags_request_duration_seconds_count", endpoint="/ags/getSessionToken")
        assert all(counted[each] <= self.sent[each] for each in self.sent), "more than was sent"
        return (
            counted == self.sent
            and tokens == {outcome: amount for (outcome, _), amount in self.sent.items()}
            and number == self.sent.total()
        )


def test_three_processes_and_their_restarts_count_what_was_sent(
    transactional_db: None, nagra: HeadEnd, port: int
) -> None:
    with ServerProcess(AGS_WORKERS="3", AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        load = Load(server, nagra)
        load.send(10)
        for number in (signal.SIGTERM, signal.SIGKILL):
            # What a killed process has counted within the last second is lost: wait until it is shared.
            wait_until(lambda: load.is_counted(port), "not everything is counted")
            before = server.workers()
            os.kill(before[0], number)
            wait_until(
                lambda before=before: len(server.workers()) == 3 and before[0] not in server.workers(),  # type: ignore[misc]
                "the process is not replaced",
            )
            load.send(10)
        wait_until(lambda: load.is_counted(port), "not everything is counted")
        wait_until(lambda: total(scrape(port), "ags_processes") == 3, "not all processes are counted")


def test_only_existing_tenants_and_services_become_labels(
    transactional_db: None, nagra: HeadEnd, port: int
) -> None:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        here = replace(nagra, client=server.client())
        assert here.present(here.token()).status_code == 200
        for number in range(5):
            assert here.present(here.token(), nv_tenant_id=f"tenant-{number}").status_code == 403
            assert here.present(here.token(), x_auth_service_id=f"service-{number}").status_code == 403
        samples = scrape(port)
    labels = {
        (dict(own)["tenant"], dict(own)["service"]) for name, own in samples if name == "ags_requests_total"
    }
    assert labels - {("", "")} == {(nagra.tenant_id, SERVICE), (nagra.tenant_id, OTHER), (OTHER, OTHER)}
    assert total(samples, "ags_requests_total", tenant=OTHER) == 5
    assert total(samples, "ags_requests_total", tenant=nagra.tenant_id, service=OTHER) == 5


def test_tenants_beyond_the_limit_are_added_up(
    transactional_db: None, nagra: HeadEnd, sunrise: HeadEnd, port: int
) -> None:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}", AGS_METRICS_TENANTS="1") as server:
        for head_end in (nagra, sunrise):
            here = replace(head_end, client=server.client())
            assert ClientApp(here).sign_on().status_code == 201
        samples = scrape(port)
    first, second = sorted([nagra.tenant_id, sunrise.tenant_id])
    assert total(samples, "ags_requests_total", tenant=first) == 2
    assert total(samples, "ags_requests_total", tenant=second) == 0
    assert total(samples, "ags_requests_total", tenant=OTHER) == 2
    assert total(samples, "ags_key_tokens_total", tenant=OTHER, kid=OTHER) == 1
