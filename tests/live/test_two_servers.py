"""Two servers on one database: revocation is immediate, and a jti can be used only once."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction

from ags.sessions.models import SessionToken
from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.live import ResponseLog, Servers, continuous_requests, use_server, wait_until_served
from tests.support.operators import add_key, create_operator
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql


def has_responses(log: ResponseLog, server: ServerProcess) -> bool:
    """Return True if the server has accepted more than ten tokens."""
    return log.count(server, after=0)[200, None] > 10


def has_any_responses(log: ResponseLog, server: ServerProcess, after: float) -> bool:
    """Return True if the server has answered more than ten requests that were sent after that time."""
    return log.count(server, after=after).total() > 10


def revoke_key(head_end: HeadEnd) -> None:
    key = Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)
    key.state = "revoked"
    key.save()


def disable_service(head_end: HeadEnd) -> None:
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    service.enabled = False
    service.save()


def disable_tenant(head_end: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk=head_end.tenant_id)
    tenant.enabled = False
    tenant.save()


def require_jti(head_end: HeadEnd) -> None:
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    service.settings["replay"] = "required"
    service.save()


def run_sql(statement: str) -> Callable[[HeadEnd], None]:
    """Return a change with SQL, which does not increment the version of the tenant."""

    def change(head_end: HeadEnd) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, [head_end.tenant_id])
            assert cursor.rowcount == 1

    return change


# The change, and the response after it.
REVOCATIONS = {
    "a key is revoked": (revoke_key, (401, "not_authenticated")),
    "a service is disabled": (disable_service, (403, "service_not_available")),
    "a tenant is disabled": (disable_tenant, (403, "service_not_available")),
    # Nothing is disabled: the statement only detects that the version has changed.
    "a rule is tightened": (require_jti, (401, "claim_missing")),
    "a key is revoked with SQL": (
        run_sql("UPDATE tenants_key SET state = 'revoked' WHERE tenant_id = %s"),
        (401, "not_authenticated"),
    ),
    "a service is disabled with SQL": (
        run_sql("UPDATE tenants_service SET enabled = false WHERE tenant_id = %s"),
        (403, "service_not_available"),
    ),
    "a tenant is disabled with SQL": (
        run_sql("UPDATE tenants_tenant SET enabled = false WHERE id = %s"),
        (403, "service_not_available"),
    ),
}


@pytest.mark.parametrize(("revoke", "expected"), REVOCATIONS.values(), ids=REVOCATIONS)
def test_revocation_is_effective_from_its_commit(
    two_servers: Servers,
    nagra: HeadEnd,
    revoke: Callable[[HeadEnd], None],
    expected: tuple[int, str],
) -> None:
    for server in two_servers:
        wait_until_served(server, nagra)
    with continuous_requests(two_servers, nagra) as log:
        for server in two_servers:
            wait_until(partial(has_responses, log, server), "no response")
        with transaction.atomic():
            revoke(nagra)
        committed = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            (committed_at,) = cursor.fetchone()
        # First only the statement rejects, later also the new snapshot.
        wait_for_responses(two_servers, log, after=committed)
        wait_for_responses(two_servers, log, after=wait_for_new_snapshots(two_servers))
    for server in two_servers:
        assert set(log.count(server, after=committed)) == {expected}
    assert not SessionToken.objects.for_tenant(nagra.tenant_id).filter(created_at__gt=committed_at).exists()
    successful = sum(log.count(server, after=0)[200, None] for server in two_servers)
    issued = SessionToken.objects.for_tenant(nagra.tenant_id).count()
    assert issued == successful + len(two_servers), (
        "a token was issued without a row, or a row without a token"
    )


def wait_for_responses(servers: Servers, log: ResponseLog, *, after: float) -> None:
    """Wait until each server has responded to several requests sent after that time."""
    for server in servers:
        wait_until(
            partial(has_any_responses, log, server, after),
            f"{server.url} does not respond",
        )


_numbers = itertools.count(1)


def wait_for_new_snapshots(servers: Servers) -> float:
    """Wait until each server has read its tenants again; return a time after that."""
    new_operator = create_operator(f"newcomer-{next(_numbers)}", bytes(range(32)), is_limited=False)
    wait_for_each(servers, lambda server: use_server(server, new_operator).discover().status_code == 200)
    return time.monotonic()


def wait_for_each(servers: Servers, condition: Callable[[ServerProcess], bool]) -> None:
    """Wait until the condition is true for each server, and check that it remains true."""
    for server in servers:
        wait_until(partial(condition, server), f"the condition is false for {server.url}")
        assert all(condition(server) for _ in range(5)), f"the condition is not always true for {server.url}"


def test_new_key_works_on_each_server(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        wait_until_served(server, nagra)
    newer = replace(nagra, kid="newer", secret=bytes(range(50, 82)))
    assert use_server(two_servers[0], newer).present(newer.token()).status_code == 401
    add_key(newer)
    wait_for_each(
        two_servers, lambda server: use_server(server, newer).present(newer.token()).status_code == 200
    )


def test_new_tenant_is_served_by_each_server(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        wait_until_served(server, nagra)
    sunrise = create_operator(f"sunrise-of-{nagra.tenant_id}", bytes(range(101, 133)), is_limited=False)
    wait_for_each(
        two_servers,
        lambda server: (
            use_server(server, sunrise).discover().status_code == 200
            and use_server(server, sunrise).present(sunrise.token()).status_code == 200
        ),
    )


def names(response: Any) -> list[str]:
    return [service["authServiceName"] for service in response.json().get("availableServices", [])]


def test_new_and_enabled_services_are_discovered_on_each_server(two_servers: Servers, nagra: HeadEnd) -> None:
    disable_service(nagra)
    wait_for_each(two_servers, lambda server: use_server(server, nagra).discover().status_code == 404)
    service = Service.objects.for_tenant(nagra.tenant_id).get()
    service.enabled = True
    service.save()
    wait_for_each(two_servers, lambda server: names(use_server(server, nagra).discover()) == [SERVICE])
    Service(
        tenant_id=nagra.tenant_id, name="Another", strategy="operator_token", display_name="A", enabled=True
    ).save()
    wait_for_each(
        two_servers, lambda server: names(use_server(server, nagra).discover()) == ["Another", SERVICE]
    )
    wait_for_each(
        two_servers,
        lambda server: (
            use_server(server, nagra).present(nagra.token(), x_auth_service_id="Another").status_code == 200
        ),
    )


def test_32_clients_with_one_jti_get_exactly_one_token(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        wait_until_served(server, nagra)
    rounds = [nagra.token(jti=str(uuid.uuid4())) for _ in range(20)]
    ready = threading.Barrier(32)

    def present_all(server: ServerProcess) -> list[tuple[int, str | None]]:
        here = replace(nagra, client=server.client())
        seen = []
        for token in rounds:
            ready.wait(PATIENCE)
            response = here.present(token)
            seen.append((response.status_code, response.json().get("reason")))
        return seen

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(present_all, two_servers * 16))
    for one_round in zip(*responses, strict=True):
        assert Counter(one_round) == {(200, None): 1, (401, "replayed"): 31}
    kept = SessionToken.objects.for_tenant(nagra.tenant_id).filter(jti__isnull=False)
    assert kept.count() == kept.values("jti").distinct().count() == len(rounds)


def test_jti_cannot_be_reused_at_a_service_with_more_clock_skew(two_servers: Servers, nagra: HeadEnd) -> None:
    strict = Service.objects.for_tenant(nagra.tenant_id).get()
    strict.settings["clock_skew"] = 0
    strict.save()
    Service(
        tenant_id=nagra.tenant_id,
        name="Lenient",
        strategy="operator_token",
        display_name="Lenient",
        enabled=True,
        settings={"clock_skew": 300},
    ).save()
    first, second = (wait_until_served(server, nagra) for server in two_servers)
    for life in (1, 2, 4, 8, 16, 32):  # seconds; the first may be too short for a slow machine
        token = nagra.token(jti=f"once, for {life} seconds", exp=time.time() + life)
        response = first.present(token)
        if response.status_code == 200:
            break
        assert response.json()["reason"] == "token_expired"
    assert response.status_code == 200
    wait_until(lambda: first.present(token).json()["reason"] == "token_expired", "the token does not expire")
    again = second.present(token, x_auth_service_id="Lenient")
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    fresh = nagra.token(jti="another", exp=time.time() - 1)
    assert second.present(fresh, x_auth_service_id="Lenient").status_code == 200, (
        "it does not allow more skew"
    )
