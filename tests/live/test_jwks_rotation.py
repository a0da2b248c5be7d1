"""Rotation of signing keys, seen by a resource server that uses PyJWT's client."""

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
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import use_server, wait_until_served
from tests.support.server import ServerProcess, run_manage
from tests.support.sign_ons import get_kid, shift_signing_keys
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once


def make_jwks_client(server: ServerProcess, tenant_id: str, **options: Any) -> PyJWKClient:
    return PyJWKClient(f"{server.url}/.well-known/jwks.json?tenant={tenant_id}", timeout=PATIENCE, **options)


def test_access_tokens_verify_throughout_a_rotation(server: ServerProcess, nagra: HeadEnd) -> None:
    tenant = nagra.tenant_id
    app = ClientApp(wait_until_served(server, nagra))
    # One client fetches the JWK set each time; the other caches it before the new key signs.
    uncached = make_jwks_client(server, tenant, cache_jwk_set=False)

    def verify(token: str, client: PyJWKClient = uncached) -> str:
        key = client.get_signing_key_from_jwt(token)
        payload = jwt.decode(token, key, algorithms=["ES256"], audience=tenant, issuer="ags")
        account: str = payload["accountId"]
        return account

    def get_current_kid() -> str:
        assert app.refresh().status_code == 200
        return get_kid(app.tokens["access_token"])

    def get_published_kids() -> set[str]:
        return {str(key.key_id) for key in uncached.get_signing_keys()}

    app.sign_on()
    before = app.tokens["access_token"]
    old = get_kid(before)
    assert verify(before) == "account-1"

    new = SigningKey.objects.for_tenant(tenant).get(state="staged")
    assert get_published_kids() == {old, new.kid}
    cached = make_jwks_client(server, tenant, lifespan=3600)
    assert verify(before, cached) == "account-1"
    assert get_current_kid() == old

    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step(tenant)
    wait_until(lambda: get_current_kid() == new.kid, "the new key does not sign")
    standby = SigningKey.objects.for_tenant(tenant).get(state="staged").kid
    during = app.tokens["access_token"]
    for client in (uncached, cached):
        assert [verify(token, client) for token in (before, during)] == ["account-1"] * 2

    shift_signing_keys(timedelta(hours=2))
    rotation.perform_next_step(tenant)
    wait_until(lambda: get_published_kids() == {new.kid, standby}, "the old key is not withdrawn")
    get_current_kid()
    after = app.tokens["access_token"]
    for client in (uncached, cached):
        assert [verify(token, client) for token in (during, after)] == ["account-1"] * 2
    with pytest.raises(jwt.PyJWKClientError, match="Unable to find a signing key"):
        verify(before)


def test_revoked_key_is_replaced(server: ServerProcess, nagra: HeadEnd) -> None:
    app = ClientApp(wait_until_served(server, nagra))
    app.sign_on()
    before = app.tokens["access_token"]
    verifier = make_jwks_client(server, nagra.tenant_id, cooldown_duration=0)
    assert verifier.get_signing_key_from_jwt(before).key_id == get_kid(before)
    rotation.revoke(SigningKey.objects.for_tenant(nagra.tenant_id).get(state="active"))
    wait_until(
        lambda: app.refresh().status_code == 200 and get_kid(app.tokens["access_token"]) != get_kid(before),
        "the new key does not sign",
    )
    assert app.sign_out(before).status_code == 401
    after = app.tokens["access_token"]
    assert verifier.get_signing_key_from_jwt(after).key_id == get_kid(after)
    assert app.sign_out(after).status_code == 200


@pytest.mark.postgresql
def test_servers_sign_only_with_published_keys(
    two_servers: tuple[ServerProcess, ServerProcess], nagra: HeadEnd
) -> None:
    """The JWK set of one server always contains the keys with which the other signs."""
    tenant = nagra.tenant_id
    apps = [ClientApp(wait_until_served(server, nagra)) for server in two_servers]
    steps: list[Callable[[], Any]] = [lambda: rotation.perform_next_step(tenant)] * 6
    for step in steps:
        shift_signing_keys(timedelta(hours=2))
        step()
        for (
            app
        ) in apps:  # a new sign-on for each step: the refreshes of one within the grace period are limited
            app.sign_on()
        for _ in range(10):
            for app, other in zip(apps, reversed(two_servers), strict=True):
                assert app.refresh().status_code == 200
                keys = (
                    use_server(other, nagra)
                    .client.get(f"/.well-known/jwks.json?tenant={tenant}")
                    .json()["keys"]
                )
                assert get_kid(app.tokens["access_token"]) in {key["kid"] for key in keys}


@pytest.mark.postgresql
def test_exit_status_of_rotate_signing_key(nagra: HeadEnd) -> None:
    def rotate(tenant: str) -> subprocess.CompletedProcess[str]:
        return run_manage("rotate_signing_key", tenant)

    second, unknown = rotate(nagra.tenant_id), rotate("nobody")
    assert (second.returncode, second.stdout) == (1, "")
    assert "Too early: verifiers may not have fetched" in second.stderr
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    first = rotate(nagra.tenant_id)
    assert (first.returncode, first.stderr) == (0, "")
    assert "signs from now on" in first.stdout
    assert (unknown.returncode, unknown.stderr) == (1, "CommandError: Tenant nobody does not exist.\n")
