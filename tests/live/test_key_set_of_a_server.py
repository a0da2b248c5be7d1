"""A resource server that has the address of a key set, and PyJWT's own client, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from jwt import PyJWKClient

from tenants import rotation
from tenants.models import SigningKey
from tenants.models.signing_key import PUBLICATION_LEAD_TIME
from tests.api.test_key_set import kid_of, let_pass
from tests.conftest import ClientApp, HeadEnd
from tests.live.conftest import at, warm
from tests.live.server import ServerProcess, manage
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once


def key_set_of(server: ServerProcess, tenant_id: str, **options: Any) -> PyJWKClient:
    return PyJWKClient(f"{server.url}/.well-known/jwks.json?tenant={tenant_id}", timeout=PATIENCE, **options)


def test_access_tokens_verify_before_during_and_after_a_rotation(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    tenant = nagra.tenant_id
    app = ClientApp(warm(server, nagra))
    # One asks each time. One has asked before the new key signed, and does not ask again.
    asking = key_set_of(server, tenant, cache_jwk_set=False)

    def verified(token: str, client: PyJWKClient = asking) -> str:
        key = client.get_signing_key_from_jwt(token)
        said = jwt.decode(token, key, algorithms=["ES256"], audience=tenant, issuer="ags")
        account: str = said["accountId"]
        return account

    def kid_at_work() -> str:
        assert app.refresh().status_code == 200
        return kid_of(app.tokens["access_token"])

    def published() -> set[str]:
        return {key.key_id for key in asking.get_signing_keys()}

    app.sign_on()
    before = app.tokens["access_token"]
    old = kid_of(before)
    assert verified(before) == "account-1"

    _, new = rotation.perform_next_step(tenant)
    wait_until(lambda: published() == {old, new.kid}, "the new key is not published")
    remembering = key_set_of(server, tenant, lifespan=3600)
    assert verified(before, remembering) == "account-1"
    assert kid_at_work() == old

    let_pass(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step(tenant)
    wait_until(lambda: kid_at_work() == new.kid, "the new key does not sign")
    during = app.tokens["access_token"]
    for client in (asking, remembering):
        assert [verified(token, client) for token in (before, during)] == ["account-1"] * 2

    let_pass(timedelta(hours=2))
    rotation.perform_next_step(tenant)
    wait_until(lambda: published() == {new.kid}, "the old key is not withdrawn")
    kid_at_work()
    after = app.tokens["access_token"]
    for client in (asking, remembering):
        assert [verified(token, client) for token in (during, after)] == ["account-1"] * 2
    with pytest.raises(jwt.PyJWKClientError, match="Unable to find a signing key"):
        verified(before)


def test_a_key_that_is_revoked_in_an_emergency_is_replaced(server: ServerProcess, nagra: HeadEnd) -> None:
    app = ClientApp(warm(server, nagra))
    app.sign_on()
    before = app.tokens["access_token"]
    verifier = key_set_of(server, nagra.tenant_id, cooldown_duration=0)
    assert verifier.get_signing_key_from_jwt(before).key_id == kid_of(before)
    rotation.revoke(SigningKey.objects.for_tenant(nagra.tenant_id).get())
    wait_until(
        lambda: app.refresh().status_code == 200 and kid_of(app.tokens["access_token"]) != kid_of(before),
        "the new key does not sign",
    )
    assert app.sign_out(before).status_code == 401
    after = app.tokens["access_token"]
    assert verifier.get_signing_key_from_jwt(after).key_id == kid_of(after)
    assert app.sign_out(after).status_code == 200


@pytest.mark.postgresql
def test_two_servers_never_sign_with_a_key_that_is_not_published(
    two_servers: tuple[ServerProcess, ServerProcess], nagra: HeadEnd
) -> None:
    """Whichever of them signs, the key set of the other has the key, through two rotations."""
    tenant = nagra.tenant_id
    apps = [ClientApp(warm(server, nagra)) for server in two_servers]
    steps: list[Callable[[], Any]] = [lambda: rotation.perform_next_step(tenant)] * 6
    for step in steps:
        let_pass(timedelta(hours=2))
        step()
        for app in apps:  # of its own for each step: a sign-on is not refreshed without end in the grace
            app.sign_on()
        for _ in range(10):
            for app, other in zip(apps, reversed(two_servers), strict=True):
                assert app.refresh().status_code == 200
                keys = at(other, nagra).client.get(f"/.well-known/jwks.json?tenant={tenant}").json()["keys"]
                assert kid_of(app.tokens["access_token"]) in {key["kid"] for key in keys}


@pytest.mark.postgresql
def test_the_exit_status_of_the_command(nagra: HeadEnd) -> None:
    def rotate(tenant: str) -> subprocess.CompletedProcess[str]:
        return manage("rotate_signing_key", tenant)

    first, second, unknown = rotate(nagra.tenant_id), rotate(nagra.tenant_id), rotate("nobody")
    assert (first.returncode, first.stderr) == (0, "")
    assert "published; it can sign from" in first.stdout
    assert (second.returncode, second.stdout) == (1, "")
    assert "Too early: verifiers may not have fetched" in second.stderr
    assert (unknown.returncode, unknown.stderr) == (1, "CommandError: Tenant nobody does not exist.\n")
