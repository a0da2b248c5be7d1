"""Two servers, one of which has a wrong clock."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import jwt
import pytest

from ags.database.clock import get_database_time
from ags.sessions.models import Device
from tenants.models import KeyUse
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import use_server, wait_until_served
from tests.support.moved_clock import HOUR, server_with_moved_clock
from tests.support.server import ServerProcess
from tests.support.sign_ons import decode_claims
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql


def verify_as_resource_server(server: ServerProcess, tenant_id: str, token: str) -> dict[str, Any]:
    """Return the claims of an access token that a resource server with the right clock accepts."""
    key_set = server.get(f"/.well-known/jwks.json?tenant={tenant_id}").json()
    keys = {key["kid"]: jwt.PyJWK(key) for key in key_set["keys"]}
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        [key.algorithm_name],
        options={"verify_aud": False, "require": ["exp", "iat"]},
        leeway=PATIENCE,
    )
    return claims


@pytest.mark.parametrize("moved", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_server_with_a_wrong_clock_is_not_ready_and_issues_valid_tokens(
    transactional_db: None, nagra: HeadEnd, server: ServerProcess, moved: int
) -> None:
    with server_with_moved_clock(moved) as wrong:
        # Its first response already is 503, and those of the other server are not.
        correlation_id = f"moved-{moved}"
        response = wrong.get("/readyz", headers={"x-correlation-id": correlation_id})
        assert (response.status_code, server.get("/readyz").status_code) == (503, 200)
        assert wrong.request_line(correlation_id)["reason"] == "clock_differs"
        direction = "ahead" if moved > 0 else "behind"
        assert f'"clock": "{direction}"' in wrong.log
        assert f"(operations.W006) The clock of this machine is {direction}" in wrong.log

        # A load balancer needs some time, or has no other server: what it issues until then is valid.
        for issuing, other in ((wrong, server), (server, wrong)):
            wait_until_served(issuing, nagra)
            here, there = use_server(issuing, nagra), use_server(other, nagra)
            now = time.time()
            assert here.present(here.token(iat=int(now), exp=int(now) + PATIENCE)).status_code == 200
            assert here.present(here.token(exp=int(now) - HOUR // 2)).status_code == 401, "expired"
            app = ClientApp(here)
            before = get_database_time().timestamp()
            assert app.sign_on().status_code == 201
            after = get_database_time().timestamp()
            claims = verify_as_resource_server(server, nagra.tenant_id, app.tokens["access_token"])
            # The measurement is exact to half of the time that a statement took.
            assert before - PATIENCE < claims["iat"] < after + PATIENCE
            assert claims["exp"] - claims["iat"] == app.tokens["expires_in"]
            row = Device.objects.for_tenant(nagra.tenant_id).get(client_id=app.tokens["client_id"])
            refresh = decode_claims(app.tokens["refresh_token"])
            assert refresh["exp"] == int(row.refresh_expires_at.timestamp())
            left = refresh["exp"] - before
            assert abs(app.tokens["refresh_expires_in"] - left) < PATIENCE

            # Both servers accept them.
            for each in (there, here):
                elsewhere = ClientApp(each, tokens=app.tokens)
                assert elsewhere.refresh().status_code == 200
                app.tokens = elsewhere.tokens
            assert ClientApp(there, tokens=app.tokens).sign_out().status_code == 200


@pytest.mark.parametrize("moved", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_tolerance_of_0_leaves_a_server_with_a_wrong_clock_in_service(
    transactional_db: None, nagra: HeadEnd, moved: int
) -> None:
    with server_with_moved_clock(moved, AGS_CLOCK_TOLERANCE="0") as wrong:
        wait_until(lambda: wrong.get("/readyz").status_code == 200, "the server is not ready")
        assert '"the clock differs from that of the database"' in wrong.log
        wait_until_served(wrong, nagra)
        date = parsedate_to_datetime(wrong.get("/healthz").headers["Date"])
        assert abs(date.timestamp() - time.time()) < PATIENCE


def test_the_age_of_tokens_is_measured_with_the_clock_of_the_database(
    transactional_db: None, nagra: HeadEnd
) -> None:
    with server_with_moved_clock(HOUR) as wrong:
        here = replace(nagra, client=wrong.client())
        assert here.present(here.token(iat=int(time.time()))).status_code == 200
    (row,) = KeyUse.objects.for_tenant(nagra.tenant_id)
    assert row.min_age is not None
    assert abs(row.min_age) < PATIENCE
