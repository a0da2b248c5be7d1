"""Two server processes on one database: what is withdrawn ends at once, a jti counts once."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from django.db import connection, transaction

from ags.sessions.models import SessionToken
from tenants.models import Key, Service, Tenant
from tests.conftest import SERVICE, HeadEnd, add_key, operator
from tests.live.conftest import at, warm
from tests.live.server import ServerProcess
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

Servers = tuple[ServerProcess, ServerProcess]


@dataclass
class Noted:
    """What was answered: where, to a request sent when, with which status and reason."""

    answers: list[tuple[ServerProcess, float, int, str | None]] = field(default_factory=list)

    def of(self, server: ServerProcess, *, after: float) -> Counter[tuple[int, str | None]]:
        """The answers of that server to what was sent after that moment."""
        return Counter(
            (status, reason)
            for where, sent, status, reason in self.answers.copy()
            if where is server and sent > after
        )


@contextmanager
def hammering(servers: Servers, head_end: HeadEnd) -> Iterator[Noted]:
    """Present good tokens to both servers, from three threads each, all the while."""
    noted = Noted()
    enough = threading.Event()

    def present(server: ServerProcess) -> None:
        here = replace(head_end, client=server.client())
        while not enough.is_set():
            token = here.token()
            sent = time.monotonic()
            answer = here.present(token)
            noted.answers.append((server, sent, answer.status_code, answer.json().get("reason")))

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(present, server) for server in servers for _ in range(3)]
        try:
            yield noted
        finally:
            enough.set()
        for thread in running:
            thread.result(PATIENCE)


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


def demand_jti(head_end: HeadEnd) -> None:
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    service.settings["replay"] = "required"
    service.save()


def by_hand(statement: str) -> Callable[[HeadEnd], None]:
    """A change past all our code, which does not count the tenant's version up."""

    def change(head_end: HeadEnd) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, [head_end.tenant_id])
            assert cursor.rowcount == 1

    return change


# The change, and what is answered from then on.
WITHDRAWN = {
    "a key is revoked": (revoke_key, (401, "not_authenticated")),
    "a service is disabled": (disable_service, (403, "service_not_available")),
    "a tenant is disabled": (disable_tenant, (403, "service_not_available")),
    # Nothing is disabled: only the version tells the statement that the tokens were judged by the old rule.
    "a rule is tightened": (demand_jti, (401, "claim_missing")),
    "a key is revoked by hand": (
        by_hand("UPDATE tenants_key SET state = 'revoked' WHERE tenant_id = %s"),
        (401, "not_authenticated"),
    ),
    "a service is disabled by hand": (
        by_hand("UPDATE tenants_service SET enabled = false WHERE tenant_id = %s"),
        (403, "service_not_available"),
    ),
    "a tenant is disabled by hand": (
        by_hand("UPDATE tenants_tenant SET enabled = false WHERE id = %s"),
        (403, "service_not_available"),
    ),
}


@pytest.mark.parametrize(("withdraw", "answered"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_what_is_withdrawn_issues_nothing_from_its_commit_on(
    two_servers: Servers,
    nagra: HeadEnd,
    withdraw: Callable[[HeadEnd], None],
    answered: tuple[int, str],
) -> None:
    for server in two_servers:
        warm(server, nagra)
    with hammering(two_servers, nagra) as noted:
        for server in two_servers:
            wait_until(lambda server=server: noted.of(server, after=0)[200, None] > 10, "nothing runs")
        with transaction.atomic():
            withdraw(nagra)
        committed = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            (moment,) = cursor.fetchone()
        # First the statement alone refuses, then a snapshot that is newer than the commit, too.
        have_answered(two_servers, noted, after=committed)
        have_answered(two_servers, noted, after=have_looked_again(two_servers))
    for server in two_servers:
        assert set(noted.of(server, after=committed)) == {answered}
    assert not SessionToken.objects.for_tenant(nagra.tenant_id).filter(created_at__gt=moment).exists()
    granted = sum(noted.of(server, after=0)[200, None] for server in two_servers)
    issued = SessionToken.objects.for_tenant(nagra.tenant_id).count()
    assert issued == granted + len(two_servers), "a row for each token granted, those of warming up included"


def have_answered(servers: Servers, noted: Noted, *, after: float) -> None:
    """Wait until each server has answered some of what was sent after that moment."""
    for server in servers:
        wait_until(
            lambda server=server: noted.of(server, after=after).total() > 10, f"{server.url} does not answer"
        )


_newcomers = itertools.count(1)


def have_looked_again(servers: Servers) -> float:
    """Wait until each server has asked the database for its tenants; return a moment after that."""
    newcomer = operator(f"newcomer-{next(_newcomers)}", bytes(range(32)))
    works_on_each(servers, lambda server: at(server, newcomer).discover().status_code == 200)
    return time.monotonic()


def works_on_each(servers: Servers, works: Callable[[ServerProcess], bool]) -> None:
    """Wait until it works on each server, and check that it goes on to work."""
    for server in servers:
        wait_until(lambda server=server: works(server), f"it does not work on {server.url}")
        assert all(works(server) for _ in range(5)), f"it works on {server.url} now and then"


def test_a_new_key_works_on_each(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        warm(server, nagra)
    newer = replace(nagra, kid="newer", secret=bytes(range(50, 82)))
    assert at(two_servers[0], newer).present(newer.token()).status_code == 401
    add_key(newer)
    works_on_each(two_servers, lambda server: at(server, newer).present(newer.token()).status_code == 200)


def test_a_new_tenant_is_served_by_each(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        warm(server, nagra)
    sunrise = operator(f"sunrise-of-{nagra.tenant_id}", bytes(range(101, 133)))
    works_on_each(
        two_servers,
        lambda server: (
            at(server, sunrise).discover().status_code == 200
            and at(server, sunrise).present(sunrise.token()).status_code == 200
        ),
    )


def names(answer: Any) -> list[str]:
    return [service["authServiceName"] for service in answer.json().get("availableServices", [])]


def test_a_new_service_and_one_enabled_again_are_discovered_on_each(
    two_servers: Servers, nagra: HeadEnd
) -> None:
    disable_service(nagra)
    works_on_each(two_servers, lambda server: at(server, nagra).discover().status_code == 404)
    service = Service.objects.for_tenant(nagra.tenant_id).get()
    service.enabled = True
    service.save()
    works_on_each(two_servers, lambda server: names(at(server, nagra).discover()) == [SERVICE])
    Service(
        tenant_id=nagra.tenant_id, name="Another", strategy="operator_token", display_name="A", enabled=True
    ).save()
    works_on_each(two_servers, lambda server: names(at(server, nagra).discover()) == ["Another", SERVICE])
    works_on_each(
        two_servers,
        lambda server: (
            at(server, nagra).present(nagra.token(), x_auth_service_id="Another").status_code == 200
        ),
    )


def test_32_clients_with_one_jti_get_exactly_one_token(two_servers: Servers, nagra: HeadEnd) -> None:
    for server in two_servers:
        warm(server, nagra)
    rounds = [nagra.token(jti=str(uuid.uuid4())) for _ in range(20)]
    ready = threading.Barrier(32)

    def present_all(server: ServerProcess) -> list[tuple[int, str | None]]:
        here = replace(nagra, client=server.client())
        seen = []
        for token in rounds:
            ready.wait(PATIENCE)
            answer = here.present(token)
            seen.append((answer.status_code, answer.json().get("reason")))
        return seen

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(present_all, two_servers * 16))
    for one_round in zip(*answers, strict=True):
        assert Counter(one_round) == {(200, None): 1, (401, "replayed"): 31}
    kept = SessionToken.objects.for_tenant(nagra.tenant_id).filter(jti__isnull=False)
    assert kept.count() == kept.values("jti").distinct().count() == len(rounds)


def test_a_jti_spent_on_one_service_is_spent_on_another_that_allows_more_skew(
    two_servers: Servers, nagra: HeadEnd
) -> None:
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
    first, second = (warm(server, nagra) for server in two_servers)
    for life in (1, 2, 4, 8, 16, 32):  # seconds, of which the first may be too few for a slow machine
        token = nagra.token(jti=f"once, for {life} seconds", exp=time.time() + life)
        answer = first.present(token)
        if answer.status_code == 200:
            break
        assert answer.json()["reason"] == "token_expired"
    assert answer.status_code == 200
    wait_until(lambda: first.present(token).json()["reason"] == "token_expired", "the token does not expire")
    again = second.present(token, x_auth_service_id="Lenient")
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    fresh = nagra.token(jti="another", exp=time.time() - 1)
    assert second.present(fresh, x_auth_service_id="Lenient").status_code == 200, "it does allow more skew"
