"""`manage.py purge` with running servers, and with another purge."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction
from django.db.models.functions import Now

from ags.sessions.models import Lease, SessionToken
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.live import Servers, continuous_requests, wait_until_served
from tests.support.purge import RETENTION, add_expired_rows, purge_output
from tests.support.server import ServerProcess, run_manage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgresql


def count_expired(head_end: HeadEnd) -> int:
    return SessionToken.objects.for_tenant(head_end.tenant_id).filter(account_id="expired").count()


def test_one_of_two_concurrent_purges_fails(nagra: HeadEnd) -> None:
    add_expired_rows(nagra, 500)

    def purge() -> subprocess.CompletedProcess[str]:
        return run_manage("purge")

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            # The first purge waits for this row.
            SessionToken.objects.for_tenant(nagra.tenant_id).select_for_update().order_by("created_at", "pk")[
                :1
            ].get()
            first = pool.submit(purge)
            wait_until(Lease.objects.filter(expires_at__gt=Now()).exists, "the first purge does not start")
            second = purge()
            assert not first.done()
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.startswith("CommandError: Another purge is running: process ")
        assert (first.result().returncode, first.result().stdout) == (0, purge_output(500))
    assert count_expired(nagra) == 0
    assert run_manage("purge").stdout == purge_output(0)


def test_a_purge_does_not_disturb_requests(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        wait_until_served(server, nagra)
    add_expired_rows(nagra, 1_000)
    with continuous_requests(two_servers, nagra) as log:
        purge = run_manage("purge", "--batch", "100")
    assert (purge.returncode, purge.stdout) == (0, purge_output(1000))
    assert count_expired(nagra) == 0
    assert {(status, reason) for _, _, status, reason in log.responses} == {(200, None)}
    kept = SessionToken.objects.for_tenant(nagra.tenant_id).count()
    assert kept == len(log.responses) + len(two_servers)


def test_a_purge_keeps_rows_with_a_jti(server: ServerProcess, nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant(nagra.tenant_id).get()
    service.settings["session_token_ttl"] = 1
    service.save()
    here = wait_until_served(server, nagra)
    token = nagra.token(jti="once")
    assert here.present(token).status_code == 200
    row = SessionToken.objects.for_tenant(nagra.tenant_id).filter(jti="once", expires_at__lt=Now())
    wait_until(row.exists, "the session token does not expire")
    SessionToken.objects.for_tenant(nagra.tenant_id).update(created_at=Now() - RETENTION)
    assert run_manage("purge").stdout == purge_output(1), "the session token of the warm-up, without a jti"
    again = here.present(token)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
