"""Races of client apps on two servers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from django.db import connection

from ags.sessions.models import Device
from tenants.models import Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import Servers, wait_until_served
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE

T = TypeVar("T")


def count_deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        (number,) = cursor.fetchone()
    return int(number)


def update_tenant(head_end: HeadEnd, **fields: Any) -> None:
    """Change the tenant before the servers read it."""
    tenant = Tenant.objects.get(pk=head_end.tenant_id)
    for name, value in fields.items():
        setattr(tenant, name, value)
    tenant.save()


def race(
    servers: Servers, head_end: HeadEnd, clients: int, rounds: list[T], run: Callable[[ClientApp, T], Any]
) -> Any:
    """Run the same action in all clients simultaneously, once per round; half of the clients use each server.

    Return the responses of all clients for each round.
    """
    ready = threading.Barrier(clients)

    def run_rounds(server: ServerProcess) -> list[Any]:
        app = ClientApp(replace(head_end, client=server.client()))
        responses = []
        for item in rounds:
            ready.wait(PATIENCE)
            responses.append(run(app, item))
        return responses

    with ThreadPoolExecutor(clients) as pool:
        seen = list(pool.map(run_rounds, servers * (clients // 2)))
    return list(zip(*seen, strict=True))


def wait_until_served_by_both(servers: Servers, head_end: HeadEnd) -> HeadEnd:
    """Wait until both servers serve the tenant; return the head-end for the first server."""
    first, _ = (wait_until_served(server, head_end) for server in servers)
    return first


def count_statuses(responses: Any) -> Counter[int]:
    return Counter(response.status_code for response in responses)


def get_devices(head_end: HeadEnd) -> list[Device]:
    return list(Device.objects.for_tenant(head_end.tenant_id).order_by("pk"))
