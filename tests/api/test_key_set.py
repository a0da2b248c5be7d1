"""The key set: whoever has it verifies access tokens by himself, before, during and after a rotation."""

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
from django.db.models import F
from django.test import Client

from tenants import rotation
from tenants.models import KeyState, SigningKey, Tenant
from tenants.models.signing_key import PUBLICATION_LEAD_TIME, RETIREMENT_MARGIN
from tenants.rotation import RotationTooEarly
from tenants.snapshot import snapshot
from tests.api.test_refusals import ID, UNAVAILABLE, database_away, refusal, whole
from tests.conftest import ClientApp, HeadEnd, platform
from tests.sessions.test_redeem import NOT_ACCEPTED
from tests.sessions.test_refresh import claims

PATH = "/.well-known/jwks.json"
NO_KEY_SET = refusal(404, 40402, "no_key_set", "There is no such tenant.")


def fetch(tenant: str = "nagra", **headers: str) -> Any:
    """Ask as a verifier does, and as of now."""
    snapshot.invalidate("nagra")
    given = {"x-correlation-id": ID} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Client().get(PATH, {"tenant": tenant}, headers=given)


def kids(tenant: str = "nagra") -> list[str]:
    return [key["kid"] for key in fetch(tenant).json()["keys"]]


def verified(token: str, keys: Any = None, tenant: str = "nagra") -> dict[str, Any]:
    """Verify as a service does that has the key set and nothing else. Raises PyJWT's errors."""
    found = jwt.PyJWKSet.from_dict(keys or fetch(tenant).json())[jwt.get_unverified_header(token)["kid"]]
    said: dict[str, Any] = jwt.decode(token, found, ["ES256"], audience=tenant, issuer="ags")
    return said


def key(state: str) -> SigningKey:
    return SigningKey.objects.for_tenant("nagra").get(state=state)


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def let_pass(time: timedelta) -> None:
    """Move what the keys know of the past and of the future, instead of waiting."""
    SigningKey.unscoped.update(published_at=F("published_at") - time, needed_until=F("needed_until") - time)


# The document


def test_the_key_set_holds_public_halves_and_nothing_else(nagra: HeadEnd) -> None:
    answer = fetch()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Vary"] == "origin"
    (only,) = answer.json()["keys"]
    row = key("active")
    assert set(only) == {"kty", "crv", "use", "alg", "kid", "x", "y"}
    assert (only["kty"], only["crv"], only["use"], only["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert only["kid"] == row.kid
    assert jwt.PyJWK(only).key.public_numbers() == row.secret().public_key().public_numbers()


def test_a_key_set_that_has_not_changed_is_not_sent_again(nagra: HeadEnd) -> None:
    etag = fetch().headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = fetch(if_none_match=known)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == etag
        assert answer.headers["Cache-Control"] == "public, max-age=300"
    rotation.perform_next_step("nagra")
    answer = fetch(if_none_match=etag)
    assert answer.status_code == 200
    assert answer.headers["ETag"] != etag


def test_head_sends_the_headers_alone(nagra: HeadEnd) -> None:
    snapshot.invalidate("nagra")
    answer = Client().head(PATH, {"tenant": "nagra"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["ETag"] == fetch().headers["ETag"]


@pytest.mark.parametrize("tenant", ["nobody", "", "na gra", "nagra\0", "NAGRA", "nagra~x", "x" * 5000])
def test_an_unknown_tenant_has_none(nagra: HeadEnd, tenant: str) -> None:
    assert whole(fetch(tenant)) == NO_KEY_SET


def test_without_a_tenant_there_is_none_unless_the_deployment_has_a_default(
    nagra: HeadEnd, settings: Any
) -> None:
    assert whole(Client().get(PATH, headers={"x-correlation-id": ID})) == NO_KEY_SET
    settings.AGS_DEFAULT_TENANT = "nagra"
    assert Client().get(PATH).content == fetch().content


def test_a_disabled_tenant_has_none(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    assert whole(fetch()) == NO_KEY_SET


def test_a_database_that_is_away_is_a_503(nagra: HeadEnd) -> None:
    with database_away():
        assert whole(Client().get(f"{PATH}?tenant=nagra", headers={"x-correlation-id": ID})) == UNAVAILABLE


def test_each_tenant_has_its_own_keys(app: ClientApp, sunrise: HeadEnd) -> None:
    assert not set(kids()) & set(kids("sunrise"))
    app.sign_on()
    with pytest.raises(KeyError):
        verified(app.tokens["access_token"], fetch("sunrise").json())


def shared(secret: bytes | None = None) -> SigningKey:
    """Let nagra use HS256 from its next key on."""
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    return rotation.perform_next_step("nagra", secret=secret)[1]


def test_a_shared_secret_is_never_listed(app: ClientApp) -> None:
    """Staged, active and retiring: beside a key of the other kind, which stays, and then alone."""
    old = key("active").kid
    new = shared()
    assert kids() == [old]
    let_pass(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    snapshot.invalidate("nagra")
    app.sign_on()
    assert kid_of(app.tokens["access_token"]) == new.kid
    assert kids() == [old]
    let_pass(timedelta(days=1))
    rotation.perform_next_step("nagra")
    assert fetch().json() == {"keys": []}
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "ES256"
    tenant.save()
    _, third = rotation.perform_next_step("nagra")
    assert kids() == [third.kid]
    let_pass(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    assert new.kid not in str(fetch().json())


# A rotation


def test_a_rotation_step_by_step(app: ClientApp) -> None:
    """Tokens of every moment verify with the key set of every moment at which they are good."""
    app.sign_on()
    old, before = key("active").kid, app.tokens["access_token"]
    assert kid_of(before) == old

    told, new = rotation.perform_next_step("nagra")
    assert told.startswith("published; it can sign from ")
    assert (new.state, key("active").kid, kids()) == (KeyState.STAGED, old, [new.kid, old])
    published = fetch().json()
    app.refresh()
    assert kid_of(app.tokens["access_token"]) == old, "it does not sign yet"
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {new.kid} before"):
        rotation.perform_next_step("nagra")
    let_pass(PUBLICATION_LEAD_TIME - timedelta(seconds=5))
    with pytest.raises(RotationTooEarly):
        rotation.perform_next_step("nagra")
    let_pass(timedelta(seconds=5))

    assert rotation.perform_next_step("nagra") == ("signs from now on", new)
    snapshot.invalidate("nagra")
    app.refresh()
    during = app.tokens["access_token"]
    assert kid_of(during) == new.kid
    assert (key("active").kid, key("retiring").kid, set(kids())) == (new.kid, old, {new.kid, old})
    for keys in (published, fetch().json()):
        assert verified(before, keys)["accountId"] == verified(during, keys)["accountId"] == "account-1"
    with pytest.raises(RotationTooEarly, match=f"tokens signed by {old} are valid until"):
        rotation.perform_next_step("nagra")
    let_pass(timedelta(seconds=3600 + RETIREMENT_MARGIN.seconds - 5))
    with pytest.raises(RotationTooEarly):
        rotation.perform_next_step("nagra")
    assert app.head_end.tenant_id == "nagra"
    assert platform("nagra").sees(before), "AGS itself takes it for as long"
    let_pass(timedelta(seconds=5))

    told, withdrawn = rotation.perform_next_step("nagra")
    assert (told, withdrawn.kid) == ("revoked; every token that it signed has expired", old)
    assert kids() == [new.kid]
    assert verified(during)["deviceId"] == app.tokens["client_id"]
    assert whole(app.sign_out(before, x_correlation_id=ID)) == NOT_ACCEPTED
    assert app.refresh().status_code == 200
    assert rotation.perform_next_step("nagra")[0].startswith("published"), "and so on"


def test_the_next_rotation_begins_when_this_one_has_ended(nagra: HeadEnd) -> None:
    for _ in range(2):
        rotation.perform_next_step("nagra")
        let_pass(PUBLICATION_LEAD_TIME)
        rotation.perform_next_step("nagra")
        let_pass(timedelta(hours=2))
        rotation.perform_next_step("nagra")
    states = SigningKey.objects.for_tenant("nagra").order_by("pk").values_list("state", flat=True)
    assert list(states) == ["revoked", "revoked", "active"]


def test_a_rotation_of_one_tenant_leaves_the_other_alone(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    before = kids("sunrise")
    rotation.perform_next_step("nagra")
    let_pass(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    assert kids("sunrise") == before


def test_a_key_that_is_revoked_is_replaced_at_once(app: ClientApp) -> None:
    app.sign_on()
    old, before = key("active"), app.tokens["access_token"]
    resource_server = platform("nagra")
    rotation.revoke(old)
    snapshot.invalidate("nagra")
    assert whole(app.sign_out(before, x_correlation_id=ID)) == NOT_ACCEPTED
    assert not resource_server.sees(before)
    assert kids() == [key("active").kid] != [old.kid]
    with pytest.raises(KeyError):
        verified(before)
    assert app.refresh().status_code == 200, "nobody has to sign on again"
    assert verified(app.tokens["access_token"])["accountId"] == "account-1"


def test_a_staged_key_takes_the_place_of_the_one_that_is_revoked(nagra: HeadEnd) -> None:
    old = key("active")
    _, staged = rotation.perform_next_step("nagra")
    rotation.revoke(old)
    assert (key("active").kid, kids()) == (staged.kid, [staged.kid])


def test_a_staged_key_that_is_revoked_never_signs(nagra: HeadEnd) -> None:
    active = key("active").kid
    _, staged = rotation.perform_next_step("nagra")
    rotation.revoke(staged)
    assert (key("active").kid, kids()) == (active, [active])


def test_a_retiring_key_that_is_revoked_is_withdrawn_and_nothing_else_changes(app: ClientApp) -> None:
    app.sign_on()
    before = app.tokens["access_token"]
    rotation.perform_next_step("nagra")
    let_pass(PUBLICATION_LEAD_TIME)
    rotation.perform_next_step("nagra")
    active = key("active").kid
    rotation.revoke(key("retiring"))
    assert (key("active").kid, kids()) == (active, [active])
    assert app.sign_out(before).status_code == 401


# The command


def run(*arguments: str) -> str:
    told = StringIO()
    call_command("rotate_signing_key", *arguments, stdout=told)
    return told.getvalue()


def test_the_command_goes_step_by_step_and_says_what_it_did(nagra: HeadEnd) -> None:
    old = key("active").kid
    told = run("nagra")
    new = key("staged")
    assert told == f"{new.kid}: published; it can sign from {new.may_sign_at():%Y-%m-%d %H:%M:%S} UTC on\n"
    with pytest.raises(
        CommandError, match=rf"^Too early: verifiers may not have fetched {new.kid} before .* UTC\.$"
    ):
        run("nagra")
    let_pass(PUBLICATION_LEAD_TIME)
    assert run("nagra") == f"{new.kid}: signs from now on\n"
    with pytest.raises(CommandError, match=rf"^Too early: tokens signed by {old} are valid until .* UTC\.$"):
        run("nagra")
    let_pass(timedelta(hours=2))
    assert run("nagra") == f"{old}: revoked; every token that it signed has expired\n"


def test_the_command_shows_a_secret_that_it_generated_once(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    told = run("nagra")
    secret = key("staged").secret()
    assert told.splitlines()[1:] == [
        f"secret in base64, shown only once: {base64.b64encode(secret).decode()}"
    ]
    let_pass(PUBLICATION_LEAD_TIME)
    assert run("nagra") == f"{key('active').kid}: signs from now on\n"


def test_the_command_takes_the_secret_of_an_existing_platform(
    app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    secret = bytes(range(200, 232))
    monkeypatch.setenv("PLATFORM_SECRET", base64.b64encode(secret).decode())
    told = run("nagra", "--secret-env", "PLATFORM_SECRET")
    assert len(told.splitlines()) == 1, "whoever gave it has it"
    let_pass(PUBLICATION_LEAD_TIME)
    run("nagra")
    snapshot.invalidate("nagra")
    app.sign_on()
    token = app.tokens["access_token"]
    assert jwt.decode(token, secret, ["HS256"], audience="nagra") == claims(token)
    assert app.sign_out().status_code == 200


@pytest.mark.parametrize(
    ("algorithm", "value", "message"),
    [
        ("HS256", None, "The variable PLATFORM_SECRET is not set."),
        ("HS256", "not base64!", "The variable PLATFORM_SECRET is not valid base64."),
        ("HS256", base64.b64encode(b"x" * 31).decode(), ""),
        ("HS256", base64.b64encode(bytes(32)).decode(), ""),
        ("ES256", base64.b64encode(bytes(range(32))).decode(), "A secret can only be given for a new key"),
    ],
    ids=["not set", "not base64", "too short", "all the same", "of a tenant that shares none"],
)
def test_a_secret_that_cannot_be_used_changes_nothing(
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


def test_a_secret_for_a_key_that_is_already_staged_is_refused(nagra: HeadEnd) -> None:
    shared()
    with pytest.raises(ValidationError, match="only be given for a new key"):
        rotation.perform_next_step("nagra", secret=bytes(range(32)))


def test_the_command_knows_no_such_tenant(nagra: HeadEnd) -> None:
    with pytest.raises(CommandError, match=r"^Tenant nobody does not exist\.$"):
        run("nobody")
