"""The JWK set of a tenant: it verifies access tokens before, during and after a rotation."""

from __future__ import annotations

import base64
from datetime import timedelta
from io import StringIO
from typing import Any

import jwt
import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from tenants import rotation
from tenants.models import KeyState, SigningKey, Tenant
from tenants.models.signing_key import PUBLICATION_LEAD_TIME, RETIREMENT_MARGIN
from tenants.rotation import RotationTooEarly
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_unavailable
from tests.support.operators import create_platform
from tests.support.responses import (
    CORRELATION_ID,
    NOT_AUTHENTICATED,
    UNAVAILABLE,
    error_response,
    full_response,
)
from tests.support.sign_ons import decode_claims, get_kid, shift_signing_keys

PATH = "/.well-known/jwks.json"
NO_KEY_SET = error_response(404, 40402, "no_key_set", "There is no such tenant.")


def fetch(tenant: str = "nagra", **headers: str) -> Any:
    """Request the JWK set, after the server has read the tenant again."""
    snapshot.invalidate("nagra")
    all_headers = {"x-correlation-id": CORRELATION_ID} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return Client().get(PATH, {"tenant": tenant}, headers=all_headers)


def kids(tenant: str = "nagra") -> list[str]:
    return [key["kid"] for key in fetch(tenant).json()["keys"]]


def verify(token: str, keys: Any = None, tenant: str = "nagra") -> dict[str, Any]:
    """Verify an access token with only the JWK set; return its claims. Raises PyJWT's errors."""
    jwk = jwt.PyJWKSet.from_dict(keys or fetch(tenant).json())[jwt.get_unverified_header(token)["kid"]]
    payload: dict[str, Any] = jwt.decode(token, jwk, ["ES256"], audience=tenant, issuer="ags")
    return payload


def key(state: str) -> SigningKey:
    return SigningKey.objects.for_tenant("nagra").get(state=state)


# The JWK set


def test_jwk_set_contains_only_public_keys(nagra: HeadEnd) -> None:
    response = fetch()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert response.headers["Vary"] == "origin"
    (only,) = response.json()["keys"]
    row = key("active")
    assert set(only) == {"kty", "crv", "use", "alg", "kid", "x", "y"}
    assert (only["kty"], only["crv"], only["use"], only["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert only["kid"] == row.kid
    assert jwt.PyJWK(only).key.public_numbers() == row.secret().public_key().public_numbers()


def test_unchanged_jwk_set_is_304(nagra: HeadEnd) -> None:
    etag = fetch().headers["ETag"]
    for if_none_match in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = fetch(if_none_match=if_none_match)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "public, max-age=300"
    rotation.perform_next_step("nagra")
    response = fetch(if_none_match=etag)
    assert response.status_code == 200
    assert response.headers["ETag"] != etag


def test_head_sends_only_headers(nagra: HeadEnd) -> None:
    snapshot.invalidate("nagra")
    response = Client().head(PATH, {"tenant": "nagra"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["ETag"] == fetch().headers["ETag"]


@pytest.mark.parametrize("tenant", ["nobody", "", "na gra", "nagra\0", "NAGRA", "nagra~x", "x" * 5000])
def test_unknown_tenant_is_404(nagra: HeadEnd, tenant: str) -> None:
    assert full_response(fetch(tenant)) == NO_KEY_SET


def test_missing_tenant_is_404_without_a_default_tenant(nagra: HeadEnd, settings: Any) -> None:
    assert full_response(Client().get(PATH, headers={"x-correlation-id": CORRELATION_ID})) == NO_KEY_SET
    settings.AGS_DEFAULT_TENANT = "nagra"
    assert Client().get(PATH).content == fetch().content


def test_disabled_tenant_is_404(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    assert full_response(fetch()) == NO_KEY_SET


def test_unavailable_database_is_503(nagra: HeadEnd) -> None:
    with database_unavailable():
        assert (
            full_response(Client().get(f"{PATH}?tenant=nagra", headers={"x-correlation-id": CORRELATION_ID}))
            == UNAVAILABLE
        )


def test_each_tenant_has_its_own_keys(app: ClientApp, sunrise: HeadEnd) -> None:
    assert not set(kids()) & set(kids("sunrise"))
    app.sign_on()
    with pytest.raises(KeyError):
        verify(app.tokens["access_token"], fetch("sunrise").json())


def stage_shared_secret(secret: bytes | None = None) -> SigningKey:
    """Stage an HS256 key for nagra."""
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    return rotation.perform_next_step("nagra", secret=secret)[1]


def test_shared_secret_is_never_published(app: ClientApp) -> None:
    """In every state, with and without an ES256 key."""
    old = key("active").kid
    new = stage_shared_secret()
    assert kids() == [old]
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    snapshot.invalidate("nagra")
    app.sign_on()
    assert get_kid(app.tokens["access_token"]) == new.kid
    assert kids() == [old]
    shift_signing_keys(timedelta(days=1))
    rotation.perform_next_step("nagra")
    assert fetch().json() == {"keys": []}
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "ES256"
    tenant.save()
    _, third = rotation.perform_next_step("nagra")
    assert kids() == [third.kid]
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    assert new.kid not in str(fetch().json())


# Rotation


def test_rotation_step_by_step(app: ClientApp) -> None:
    """A token verifies with every JWK set that is published while the token is valid."""
    app.sign_on()
    old, before = key("active").kid, app.tokens["access_token"]
    assert get_kid(before) == old

    output, new = rotation.perform_next_step("nagra")
    assert output.startswith("published; it can sign from ")
    assert (new.state, key("active").kid, kids()) == (KeyState.STAGED, old, [new.kid, old])
    published = fetch().json()
    app.refresh()
    assert get_kid(app.tokens["access_token"]) == old, "the new key signs too early"
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {new.kid} before"):
        rotation.perform_next_step("nagra")
    shift_signing_keys(PUBLICATION_LEAD_TIME - timedelta(seconds=5))
    with pytest.raises(RotationTooEarly):
        rotation.perform_next_step("nagra")
    shift_signing_keys(timedelta(seconds=5))

    assert rotation.perform_next_step("nagra") == ("signs from now on", new)
    snapshot.invalidate("nagra")
    app.refresh()
    during = app.tokens["access_token"]
    assert get_kid(during) == new.kid
    assert (key("active").kid, key("retiring").kid, set(kids())) == (new.kid, old, {new.kid, old})
    for keys in (published, fetch().json()):
        assert verify(before, keys)["accountId"] == verify(during, keys)["accountId"] == "account-1"
    with pytest.raises(RotationTooEarly, match=f"tokens signed by {old} are valid until"):
        rotation.perform_next_step("nagra")
    shift_signing_keys(timedelta(seconds=3600 + RETIREMENT_MARGIN.seconds - 5))
    with pytest.raises(RotationTooEarly):
        rotation.perform_next_step("nagra")
    assert app.head_end.tenant_id == "nagra"
    assert create_platform("nagra").is_active(before), "AGS accepts it for as long"
    shift_signing_keys(timedelta(seconds=5))

    output, withdrawn = rotation.perform_next_step("nagra")
    assert (output, withdrawn.kid) == ("revoked; every token that it signed has expired", old)
    assert kids() == [new.kid]
    assert verify(during)["deviceId"] == app.tokens["client_id"]
    assert full_response(app.sign_out(before, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert app.refresh().status_code == 200
    assert rotation.perform_next_step("nagra")[0].startswith("published"), "and so on"


def test_several_rotations(nagra: HeadEnd) -> None:
    for _ in range(2):
        rotation.perform_next_step("nagra")
        shift_signing_keys(PUBLICATION_LEAD_TIME)
        rotation.perform_next_step("nagra")
        shift_signing_keys(timedelta(hours=2))
        rotation.perform_next_step("nagra")
    states = SigningKey.objects.for_tenant("nagra").order_by("pk").values_list("state", flat=True)
    assert list(states) == ["revoked", "revoked", "active"]


def test_rotation_does_not_affect_another_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    before = kids("sunrise")
    rotation.perform_next_step("nagra")
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    assert kids("sunrise") == before


def test_revoked_key_is_replaced_immediately(app: ClientApp) -> None:
    app.sign_on()
    old, before = key("active"), app.tokens["access_token"]
    resource_server = create_platform("nagra")
    rotation.revoke(old)
    snapshot.invalidate("nagra")
    assert full_response(app.sign_out(before, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert not resource_server.is_active(before)
    assert kids() == [key("active").kid] != [old.kid]
    with pytest.raises(KeyError):
        verify(before)
    assert app.refresh().status_code == 200, "refresh tokens stay valid"
    assert verify(app.tokens["access_token"])["accountId"] == "account-1"


def test_staged_key_replaces_a_revoked_key(nagra: HeadEnd) -> None:
    old = key("active")
    _, staged = rotation.perform_next_step("nagra")
    rotation.revoke(old)
    assert (key("active").kid, kids()) == (staged.kid, [staged.kid])


def test_revoked_staged_key_never_signs(nagra: HeadEnd) -> None:
    active = key("active").kid
    _, staged = rotation.perform_next_step("nagra")
    rotation.revoke(staged)
    assert (key("active").kid, kids()) == (active, [active])


def test_revoked_retiring_key_is_removed(app: ClientApp) -> None:
    app.sign_on()
    before = app.tokens["access_token"]
    rotation.perform_next_step("nagra")
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    active = key("active").kid
    rotation.revoke(key("retiring"))
    assert (key("active").kid, kids()) == (active, [active])
    assert app.sign_out(before).status_code == 401


# The management command


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("rotate_signing_key", *arguments, stdout=output)
    return output.getvalue()


def test_command_performs_one_step_at_a_time(nagra: HeadEnd) -> None:
    old = key("active").kid
    output = run("nagra")
    new = key("staged")
    assert output == f"{new.kid}: published; it can sign from {new.may_sign_at():%Y-%m-%d %H:%M:%S} UTC on\n"
    with pytest.raises(
        CommandError, match=rf"^Too early: verifiers may not have fetched {new.kid} before .* UTC\.$"
    ):
        run("nagra")
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    assert run("nagra") == f"{new.kid}: signs from now on\n"
    with pytest.raises(CommandError, match=rf"^Too early: tokens signed by {old} are valid until .* UTC\.$"):
        run("nagra")
    shift_signing_keys(timedelta(hours=2))
    assert run("nagra") == f"{old}: revoked; every token that it signed has expired\n"


def test_command_shows_a_generated_secret_once(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    output = run("nagra")
    secret = key("staged").secret()
    assert output.splitlines()[1:] == [
        f"secret in base64, shown only once: {base64.b64encode(secret).decode()}"
    ]
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    assert run("nagra") == f"{key('active').kid}: signs from now on\n"


def test_command_accepts_a_secret_from_the_environment(
    app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    secret = bytes(range(200, 232))
    monkeypatch.setenv("PLATFORM_SECRET", base64.b64encode(secret).decode())
    output = run("nagra", "--secret-env", "PLATFORM_SECRET")
    assert len(output.splitlines()) == 1, "the secret is not shown"
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    run("nagra")
    snapshot.invalidate("nagra")
    app.sign_on()
    token = app.tokens["access_token"]
    assert jwt.decode(token, secret, ["HS256"], audience="nagra") == decode_claims(token)
    assert app.sign_out().status_code == 200


@pytest.mark.parametrize(
    ("algorithm", "value", "message"),
    [
        ("HS256", None, "The variable PLATFORM_SECRET is not set."),
        ("HS256", "not base64!", "The variable PLATFORM_SECRET is not valid base64."),
        ("HS256", base64.b64encode(b"x" * 31).decode(), ""),
        ("HS256", base64.b64encode(bytes(32)).decode(), ""),
        (
            "ES256",
            base64.b64encode(bytes(range(32))).decode(),
            "A secret can only be given for a new key",
        ),
    ],
    ids=["not set", "not base64", "too short", "all the same", "of a tenant with ES256"],
)
def test_invalid_secret_changes_nothing(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, algorithm: str, value: str | None, message: str
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = algorithm
    tenant.save()
    monkeypatch.delenv("PLATFORM_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("PLATFORM_SECRET", value)
    with pytest.raises(CommandError, match=f"^{message}"):
        run("nagra", "--secret-env", "PLATFORM_SECRET")
    assert SigningKey.objects.for_tenant("nagra").count() == 1


def test_secret_for_an_existing_staged_key_is_rejected(nagra: HeadEnd) -> None:
    stage_shared_secret()
    with pytest.raises(ValidationError, match="only be given for a new key"):
        rotation.perform_next_step("nagra", secret=bytes(range(32)))


def test_command_rejects_an_unknown_tenant(nagra: HeadEnd) -> None:
    with pytest.raises(CommandError, match=r"^Tenant nobody does not exist\.$"):
        run("nobody")
