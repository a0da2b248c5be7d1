"""`manage.py erase_account` while the account signs on, on two servers."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ags.sessions.models import Account, Device, Event, SessionToken
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import Servers
from tests.support.races import count_deadlocks, wait_until_served_by_both
from tests.support.server import ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

ERASURES = 3

PAUSE = 0.05
"""Seconds between two sign-ons of a client: without it, they would leave no CPU for the erasure."""


@pytest.mark.timeout(5 * PATIENCE)
def test_concurrent_sign_ons_are_erased_or_of_a_new_account(two_servers: Servers, nagra: HeadEnd) -> None:
    wait_until_served_by_both(two_servers, nagra)
    deadlocks = count_deadlocks()
    stop = threading.Event()
    statuses: Counter[int] = Counter()

    def sign_on(server: ServerProcess) -> None:
        """As a new device, and again as this device, which may have been erased."""
        app = ClientApp(replace(nagra, client=server.client()))
        while not stop.wait(PAUSE):
            response = app.sign_on("gone")
            statuses[response.status_code] += 1
            if response.status_code == 201:
                statuses[app.sign_on("gone", clientId=app.tokens["client_id"]).status_code] += 1

    def count_devices() -> int:
        return Device.objects.for_tenant(nagra.tenant_id).filter(account__account_id="gone").count()

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(sign_on, server) for server in two_servers * 2]
        try:
            for _ in range(ERASURES):
                wait_until(lambda: count_devices() > 5, "nobody signs on")
                erased = run_manage("erase_account", nagra.tenant_id, "gone", "--yes")
                assert (erased.returncode, erased.stderr) == (0, "")
                assert "1 accounts erased" in erased.stdout
        finally:
            stop.set()
        for thread in running:
            thread.result(PATIENCE)
    assert {*statuses} <= {201, 401, 403, 404}, statuses
    assert statuses[201] > 5 * ERASURES
    assert count_deadlocks() == deadlocks
    assert Event.objects.for_tenant(nagra.tenant_id).filter(reason="account_erased").count() == ERASURES
    assert not Account.unscoped.filter(account_id="").exists()

    # A sign-on has a row of each kind, or of none.
    tokens = SessionToken.objects.for_tenant(nagra.tenant_id).filter(account_id="gone")
    devices = Device.objects.for_tenant(nagra.tenant_id).filter(account__account_id="gone")
    signed_on = tokens.filter(redeemed_at__isnull=False).values_list("client_id", flat=True)
    assert {*signed_on} <= {*devices.values_list("client_id", flat=True)}
