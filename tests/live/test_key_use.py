"""The use of keys, counted by real servers; a rotation by the guide alone, under load."""

from __future__ import annotations

import html
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tenants.models import Key, KeyState, KeyUse, Tenant
from tests.support.change_form import submit_change
from tests.support.clients import ClientApp, HeadEnd
from tests.support.key_use import sum_uses
from tests.support.live import wait_until_served
from tests.support.operators import SIGNED, add_key, add_public_key, add_signed_jwt_service
from tests.support.server import ServerProcess
from tests.support.staff import person
from tests.support.tokens import make_claims
from tests.support.upstream.signer import signer
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.live.key_use_settings"}
FORM = {"not_before_0": "", "not_before_1": "", "not_after_0": "", "not_after_1": ""}


def test_the_counts_of_several_processes_and_restarts_equal_what_was_sent(
    transactional_db: None, nagra: HeadEnd
) -> None:
    revoked = HeadEnd(nagra.tenant_id, "revoked", bytes(range(101, 133)))
    add_key(revoked, state=KeyState.REVOKED)
    sent: Counter[str] = Counter()

    def present(head_end: HeadEnd, number: int, status: int, **claims: Any) -> None:
        for _ in range(number):
            token = head_end.token(iat=int(time.time()), **claims)
            assert head_end.present(token).status_code == status
            sent[f"{head_end.kid} {status < 400}"] += 1

    for restart in range(2):
        with ServerProcess(AGS_WORKERS="2", **SETTINGS) as server, ServerProcess(**SETTINGS) as other:
            for here in (server, other):
                own = replace(nagra, client=here.client())
                present(own, 20 + restart, 200)
                present(own, 5, 401, aud="another")
                present(own, 3, 403, OpfTenantId="another")
                present(replace(revoked, client=here.client()), 4, 401)
                stranger = replace(own, secret=b"x" * 32)
                assert stranger.present(stranger.token()).status_code == 401
            assert ClientApp(replace(nagra, client=server.client())).sign_on().status_code == 201
            sent[f"{nagra.kid} True"] += 1
    assert sum_uses(nagra.kid, nagra.tenant_id) == (sent[f"{nagra.kid} True"], sent[f"{nagra.kid} False"])
    assert sum_uses("revoked", nagra.tenant_id) == (0, sent["revoked False"])
    rows = KeyUse.objects.for_tenant(nagra.tenant_id)
    ages = [(row.min_age, row.max_age) for row in rows.filter(key__kid=nagra.kid)]
    assert all(low is not None and high is not None and 0 <= low <= high < PATIENCE for low, high in ages)
    assert rows.filter(key__kid="revoked", min_age__isnull=False).count() == 0, "its claims are not read"


def test_the_use_of_a_public_key_is_counted(transactional_db: None, nagra: HeadEnd) -> None:
    own, staged = signer("ES256"), signer("EdDSA")
    add_signed_jwt_service(nagra.tenant_id)
    add_public_key(own, nagra.tenant_id)
    add_public_key(staged, nagra.tenant_id, state=KeyState.STAGED)
    with ServerProcess(AGS_PROVIDERS="providers.signed_jwt", **SETTINGS) as server:
        here = replace(nagra, client=server.client())

        def send(token: str, status: int) -> None:
            body = {"parameters": [{"name": "Token", "value": token}]}
            assert here.post(body, x_auth_service_id=SIGNED).status_code == status

        for _ in range(3):
            send(own.token(make_claims(iat=int(time.time()))), 200)
        send(own.token(make_claims(aud="another")), 401)
        send(staged.token(make_claims()), 401)
        send(signer("ES256", "stranger").token(make_claims(), kid=own.kid), 401)
    assert sum_uses(own.kid, nagra.tenant_id) == (3, 1)
    assert sum_uses(staged.kid, nagra.tenant_id) == (0, 1)
    rows = KeyUse.objects.for_tenant(nagra.tenant_id)
    assert [row.max_age is not None for row in rows.filter(key__kid=own.kid)] == [True]


@dataclass
class Load:
    """The responses to a head-end that signs on subscribers continuously, by kid and status."""

    head_end: HeadEnd
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    def has(self, kid: str, status: int, more_than: int = 0) -> bool:
        return self.statuses[kid, status] > more_than


@contextmanager
def continuous(*loads: Load) -> Iterator[None]:
    stop = threading.Event()

    def run(load: Load) -> None:
        while not stop.is_set():
            here = load.head_end
            response = here.present(here.token())
            load.statuses[here.kid, response.status_code] += 1
            time.sleep(0.005)

    with ThreadPoolExecutor(len(loads)) as pool:
        running = [pool.submit(run, load) for load in loads]
        try:
            yield
        finally:
            stop.set()
        for each in running:
            each.result(PATIENCE)


def test_a_rotation_by_the_guide_shows_the_traffic_of_the_old_key(
    transactional_db: None, nagra: HeadEnd
) -> None:
    """Two processes of the operator sign; the second one is forgotten when the head-end switches."""
    staff = person("operator staff", nagra.tenant_id)
    new = HeadEnd(nagra.tenant_id, "new-key", bytes(range(101, 133)))
    add_key(new, state=KeyState.STAGED)

    def page_of(head_end: HeadEnd, name: str = "change") -> str:
        key = Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)
        return f"/admin/tenants/key/{key.pk}/{name}/"

    def read(head_end: HeadEnd, name: str = "change") -> str:
        page = staff.get(page_of(head_end, name)).content.decode()
        return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())

    with ServerProcess(**SETTINGS) as one, ServerProcess(**SETTINGS) as two:
        for server in (one, two):
            wait_until_served(server, nagra)
        switched = Load(replace(nagra, client=one.client()))
        forgotten = Load(replace(nagra, client=two.client()))
        with continuous(switched, forgotten):
            # A test request with the staged key is refused, and seen.
            assert "Never. Let the operator sign a token with it" in read(new)
            trial = replace(new, client=one.client())
            assert trial.present(trial.token()).status_code == 401
            wait_until(lambda: "1 refused" in read(new), "the use of the staged key is not shown")

            assert submit_change(staff, page_of(new), FORM | {"state": "active"}).status_code == 302
            wait_until(lambda: trial.present(trial.token()).status_code == 200, "the new key is refused")
            switched.head_end = replace(switched.head_end, kid=new.kid, secret=new.secret)
            wait_until(lambda: switched.has(new.kid, 200, 20), "the head-end does not use the new key")
            assert switched.statuses[new.kid, 401] == 0

            # The page of the old key shows that something still signs with it.
            seen = sum_uses(nagra.kid, nagra.tenant_id)[0]
            wait_until(
                lambda: sum_uses(nagra.kid, nagra.tenant_id)[0] > seen, "the old traffic is not counted"
            )
            assert f"{nagra.tenant_id} uses it: in the last hour, AGS accepted" in read(nagra, "revoke")
            assert "Other shared secrets" in read(nagra, "revoke")
            assert "never used" not in read(nagra, "revoke")
            assert "Confirm it with the checkbox" in staff.post(page_of(nagra, "revoke")).content.decode()
            assert not forgotten.has(nagra.kid, 401)

            # After the revocation, exactly that traffic fails.
            before = switched.statuses[new.kid, 200]
            assert staff.post(page_of(nagra, "revoke"), {"confirm": "on"}).status_code == 302
            wait_until(lambda: forgotten.has(nagra.kid, 401, 20), "the old key is accepted")
            accepted = forgotten.statuses[nagra.kid, 200]
            wait_until(lambda: switched.has(new.kid, 200, before + 20), "the new key is refused")
            assert "refused" in read(nagra)
    assert set(switched.statuses) == {(nagra.kid, 200), (new.kid, 200)}
    assert set(forgotten.statuses) == {(nagra.kid, 200), (nagra.kid, 401)}
    assert forgotten.statuses[nagra.kid, 200] <= accepted + 1, "nothing is accepted afterwards"
    _, refused = sum_uses(nagra.kid, nagra.tenant_id)
    assert refused == forgotten.statuses[nagra.kid, 401]
    assert Tenant.objects.get(pk=nagra.tenant_id).enabled
