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
from tenants.models import SigningKey, Tenant
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
from tests.support.signing_keys import (
    JWKS_PATH,
    activate_standby,
    fetch_jwks,
    get_published_kids,
    get_signing_key,
    get_states,
    set_algorithm,
    stage_shared_secret,
    verify_with_jwks,
)

NO_KEY_SET = error_response(404, 40402, "no_key_set", "There is no such tenant.")


# The JWK set


def test_jwk_set_contains_only_public_keys(nagra: HeadEnd) -> None:
    response = fetch_jwks()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert response.headers["Vary"] == "origin"
    rows = [get_signing_key("staged"), get_signing_key("active")]
    for jwk, row in zip(response.json()["keys"], rows, strict=True):
        assert set(jwk) == {"kty", "crv", "use", "alg", "kid", "x", "y"}
        assert (jwk["kty"], jwk["crv"], jwk["use"], jwk["alg"]) == ("EC", "P-256", "sig", "ES256")
        assert jwk["kid"] == row.kid
        assert jwt.PyJWK(jwk).key.public_numbers() == row.secret().public_key().public_numbers()


def test_unchanged_jwk_set_is_304(nagra: HeadEnd) -> None:
    etag = fetch_jwks().headers["ETag"]
    for if_none_match in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = fetch_jwks(if_none_match=if_none_match)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "public, max-age=300"
    activate_standby()
    response = fetch_jwks(if_none_match=etag)
    assert response.status_code == 200
    assert response.headers["ETag"] != etag


def test_head_sends_only_headers(nagra: HeadEnd) -> None:
    snapshot.invalidate("nagra")
    response = Client().head(JWKS_PATH, {"tenant": "nagra"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["ETag"] == fetch_jwks().headers["ETag"]


@pytest.mark.parametrize("tenant", ["nobody", "", "na gra", "nagra\0", "NAGRA", "nagra~x", "x" * 5000])
def test_unknown_tenant_is_404(nagra: HeadEnd, tenant: str) -> None:
    assert full_response(fetch_jwks(tenant)) == NO_KEY_SET


def test_missing_tenant_is_404_without_a_default_tenant(nagra: HeadEnd, settings: Any) -> None:
    assert full_response(Client().get(JWKS_PATH, headers={"x-correlation-id": CORRELATION_ID})) == NO_KEY_SET
    settings.AGS_DEFAULT_TENANT = "nagra"
    assert Client().get(JWKS_PATH).content == fetch_jwks().content


def test_disabled_tenant_is_404(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    assert full_response(fetch_jwks()) == NO_KEY_SET


def test_unavailable_database_is_503(nagra: HeadEnd) -> None:
    with database_unavailable():
        assert (
            full_response(
                Client().get(f"{JWKS_PATH}?tenant=nagra", headers={"x-correlation-id": CORRELATION_ID})
            )
            == UNAVAILABLE
        )


def test_each_tenant_has_its_own_keys(app: ClientApp, sunrise: HeadEnd) -> None:
    assert not set(get_published_kids()) & set(get_published_kids("sunrise"))
    app.sign_on()
    with pytest.raises(KeyError):
        verify_with_jwks(app.tokens["access_token"], fetch_jwks("sunrise").json())


def test_shared_secret_is_never_published(app: ClientApp) -> None:
    """In every state, with and without an ES256 key."""
    old, standby = get_signing_key("active").kid, get_signing_key("staged").kid
    new = stage_shared_secret()
    assert get_published_kids() == [standby, old]
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    assert rotation.perform_next_step("nagra") == ("signs from now on", new)
    snapshot.invalidate("nagra")
    app.sign_on()
    assert get_kid(app.tokens["access_token"]) == new.kid
    assert get_published_kids() == [old], "the standby key of ES256 is not needed any more"
    shift_signing_keys(timedelta(days=1))
    rotation.perform_next_step("nagra")
    assert fetch_jwks().json() == {"keys": []}
    set_algorithm("ES256")
    third = get_signing_key("staged")
    assert get_published_kids() == [third.kid], "it is published with the change"
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {third.kid}"):
        rotation.perform_next_step("nagra")
    assert activate_standby() == third
    assert new.kid not in str(fetch_jwks().json())
    assert get_states() == ["revoked", "revoked", "retiring", "active", "staged"]


# Rotation


def test_rotation_step_by_step(app: ClientApp) -> None:
    """A token verifies with every JWK set that is published while the token is valid."""
    app.sign_on()
    old, before = get_signing_key("active").kid, app.tokens["access_token"]
    assert get_kid(before) == old

    new = get_signing_key("staged")
    assert get_published_kids() == [new.kid, old]
    published = fetch_jwks().json()
    app.refresh()
    assert get_kid(app.tokens["access_token"]) == old, "the new key signs too early"
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {new.kid} before"):
        rotation.perform_next_step("nagra")
    shift_signing_keys(PUBLICATION_LEAD_TIME - timedelta(minutes=2))
    with pytest.raises(RotationTooEarly):
        rotation.perform_next_step("nagra")
    shift_signing_keys(timedelta(minutes=2))

    assert rotation.perform_next_step("nagra") == ("signs from now on", new)
    snapshot.invalidate("nagra")
    app.refresh()
    during = app.tokens["access_token"]
    assert get_kid(during) == new.kid
    standby = get_signing_key("staged").kid
    assert (get_signing_key("active").kid, get_signing_key("retiring").kid) == (new.kid, old)
    assert get_published_kids() == [standby, new.kid, old], (
        "the next one is published in the same transaction"
    )
    for keys in (published, fetch_jwks().json()):
        assert (
            verify_with_jwks(before, keys)["accountId"]
            == verify_with_jwks(during, keys)["accountId"]
            == "account-1"
        )
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
    assert get_published_kids() == [standby, new.kid]
    assert verify_with_jwks(during)["deviceId"] == app.tokens["client_id"]
    assert full_response(app.sign_out(before, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert app.refresh().status_code == 200
    assert rotation.perform_next_step("nagra") == ("signs from now on", get_signing_key("active")), (
        "and so on"
    )
    assert get_signing_key("active").kid == standby


def test_several_rotations(nagra: HeadEnd) -> None:
    for _ in range(2):
        activate_standby()
        shift_signing_keys(timedelta(hours=2))
        rotation.perform_next_step("nagra")
    assert get_states() == ["revoked", "revoked", "active", "staged"]


def test_rotation_does_not_affect_another_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    before = get_published_kids("sunrise")
    activate_standby()
    assert get_published_kids("sunrise") == before


def test_revoked_key_is_replaced_immediately(app: ClientApp) -> None:
    app.sign_on()
    old, before = get_signing_key("active"), app.tokens["access_token"]
    standby, cached = get_signing_key("staged").kid, fetch_jwks().json()
    resource_server = create_platform("nagra")
    rotation.revoke(old)
    snapshot.invalidate("nagra")
    assert full_response(app.sign_out(before, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert not resource_server.is_active(before)
    assert get_published_kids() == [get_signing_key("staged").kid, standby]
    with pytest.raises(KeyError):
        verify_with_jwks(before)
    assert app.refresh().status_code == 200, "refresh tokens stay valid"
    assert get_kid(app.tokens["access_token"]) == standby
    for keys in (cached, fetch_jwks().json()):
        assert verify_with_jwks(app.tokens["access_token"], keys)["accountId"] == "account-1"


def test_revoked_retiring_key_is_removed(app: ClientApp) -> None:
    app.sign_on()
    before = app.tokens["access_token"]
    active = activate_standby().kid
    rotation.revoke(get_signing_key("retiring"))
    assert (get_signing_key("active").kid, get_published_kids()) == (
        active,
        [get_signing_key("staged").kid, active],
    )
    assert app.sign_out(before).status_code == 401


# The management command


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("rotate_signing_key", *arguments, stdout=output)
    return output.getvalue()


def test_command_performs_one_step_at_a_time(nagra: HeadEnd) -> None:
    old = get_signing_key("active").kid
    get_signing_key("staged").delete()  # as after an earlier release
    output = run("nagra")
    new = get_signing_key("staged")
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
    set_algorithm("HS256")
    output = run("nagra")
    secret = SigningKey.objects.for_tenant("nagra").get(state="staged", algorithm="HS256").secret()
    assert output.splitlines()[1:] == [
        f"secret in base64, shown only once: {base64.b64encode(secret).decode()}"
    ]
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    assert run("nagra") == f"{get_signing_key('active').kid}: signs from now on\n"


def test_command_accepts_a_secret_from_the_environment(
    app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_algorithm("HS256")
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
    set_algorithm(algorithm)
    monkeypatch.delenv("PLATFORM_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("PLATFORM_SECRET", value)
    with pytest.raises(CommandError, match=f"^{message}"):
        run("nagra", "--secret-env", "PLATFORM_SECRET")
    assert get_states() == ["active", "staged"]


def test_secret_for_an_existing_staged_key_is_rejected(nagra: HeadEnd) -> None:
    stage_shared_secret()
    with pytest.raises(ValidationError, match="only be given for a new key"):
        rotation.perform_next_step("nagra", secret=bytes(range(32)))


def test_command_rejects_an_unknown_tenant(nagra: HeadEnd) -> None:
    with pytest.raises(CommandError, match=r"^Tenant nobody does not exist\.$"):
        run("nobody")
