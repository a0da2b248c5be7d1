"""`manage.py move_public_keys`: keys move to the tenant, and no token is refused or replayed."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from ags.sessions.models import SessionToken
from ags.sessions.services.replays import known_replays
from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.operators import SIGNED, add_key, add_public_key, add_signed_jwt_service
from tests.support.signed_jwt import redeem, send_token
from tests.support.tokens import ENTERED, make_claims
from tests.support.upstream.signer import ALGORITHMS, signer

EC, RSA = signer("ES256"), signer("RS256")
KEYS = [signer(name) for name in ALGORITHMS]


@pytest.fixture
def service(nagra: HeadEnd) -> Service:
    return add_signed_jwt_service(settings=ENTERED)


def move(tenant: str = "nagra", service: str = SIGNED) -> list[str]:
    out = io.StringIO()
    call_command("move_public_keys", tenant, service, stdout=out)
    return out.getvalue().splitlines()


def enter(service: Service, *jwks: dict[str, Any], **settings: Any) -> None:
    service.settings = {**service.settings, "public_keys": json.dumps({"keys": jwks}), **settings}
    service.save()


def test_the_same_tokens_are_accepted_before_and_after(nagra: HeadEnd, service: Service) -> None:
    tokens = [own.token(make_claims(jti=f"{name} {own.kid}")) for own in KEYS for name in ("before", "after")]
    assert [send_token(nagra, token).status_code for token in tokens[::2]] == [200] * 4
    assert move() == [
        *(f"+ key nagra/{name}: {name}, active" for name in ["RS256", "ES256", "EdDSA", "PS256"]),
        "~ service nagra/Signed JWT: settings.keys_from entered -> tenant",
    ]
    assert [send_token(nagra, token).status_code for token in tokens[1::2]] == [200] * 4
    keys = {key.kid: key.pk for key in Key.unscoped.exclude(kid=nagra.kid)}
    assert {token.kid: token.key_id for token in SessionToken.unscoped.all()} == keys
    version = Tenant.objects.get(pk="nagra").version
    assert move() == ["nothing to do: the service verifies with the keys of the tenant"]
    assert Tenant.objects.get(pk="nagra").version == version


@pytest.mark.usefixtures("stale_snapshots")
def test_a_process_that_does_not_know_of_the_change_yet_refuses_nothing(
    nagra: HeadEnd, service: Service
) -> None:
    first, second = (
        {"parameters": [{"name": "Token", "value": EC.token(make_claims(jti=jti))}]} for jti in "ab"
    )
    assert nagra.post(first, x_auth_service_id=SIGNED).status_code == 200
    move()
    assert nagra.post(second, x_auth_service_id=SIGNED).status_code == 200
    assert SessionToken.unscoped.get(jti="b").key == Key.unscoped.get(kid=EC.kid)


def test_a_token_that_was_accepted_before_is_not_accepted_again(nagra: HeadEnd, service: Service) -> None:
    token = EC.token(make_claims(jti="j"))
    assert send_token(nagra, token).status_code == 200
    move()
    known_replays.clear()
    assert send_token(nagra, token).json()["reason"] == "replayed"


def test_revoking_a_moved_key_ends_what_it_issued_before(nagra: HeadEnd, service: Service) -> None:
    app = ClientApp(nagra)
    mine, others = (
        send_token(nagra, own.token(make_claims(sub=own.kid))).json()["sessionToken"] for own in (EC, RSA)
    )
    move()
    key = Key.unscoped.get(kid=EC.kid)
    key.state = "revoked"
    key.save()
    assert redeem(app, mine).status_code == 401
    assert redeem(app, others).status_code == 201


def test_a_key_of_two_services_is_moved_with_both(nagra: HeadEnd, service: Service) -> None:
    second = Service.objects.for_tenant("nagra").get(name=SIGNED)
    second.pk, second.name = None, "Second"
    second._state.adding = True
    second.save()
    token = EC.token(make_claims(jti="j"))
    body = {"parameters": [{"name": "Token", "value": token}]}

    def send(name: str) -> Any:
        return nagra.post(body, x_auth_service_id=name)

    assert [send(name).status_code for name in (SIGNED, "Second")] == [200, 200]
    move()
    assert move(service="Second")[0] == "key nagra/RS256 exists already; it is active"
    assert Key.unscoped.count() == 5
    assert send_token(nagra, token).json()["reason"] == "replayed"
    assert send("Second").json()["reason"] == "replayed"


def test_a_key_in_pem_and_unusable_keys(nagra: HeadEnd, service: Service) -> None:
    enter(service, EC.jwk(), RSA.jwk(use="enc"))
    assert move()[-1] == "Not moved: 1 of the entered keys, which the service did not use."
    service.refresh_from_db()
    enter(service, keys_from="entered", public_keys=RSA.pem, key_id="pem", algorithms=["RS256"])
    assert move()[0] == "+ key nagra/pem: RS256, active"
    assert send_token(nagra, RSA.token(make_claims(), kid="pem")).status_code == 200


def test_what_cannot_be_moved_changes_nothing(nagra: HeadEnd, service: Service) -> None:
    def refuse(message: str, *arguments: str) -> None:
        before = [*Key.unscoped.values(), *Service.unscoped.values(), *Tenant.objects.values()]
        with pytest.raises(CommandError, match=message):
            move(*arguments)
        assert [*Key.unscoped.values(), *Service.unscoped.values(), *Tenant.objects.values()] == before

    refuse("Tenant nobody does not exist", "nobody")
    refuse("Tenant nagra has no service 'None'", "nagra", "None")
    refuse("The service uses operator_token", "nagra", SERVICE)
    enter(service, RSA.jwk(), EC.jwk(kid="QUJD+/8="))
    refuse("The key ID 'QUJD\\+/8=' cannot be that of a key of a tenant")
    enter(service, RSA.jwk(), EC.jwk(kid="shared"))
    add_key(HeadEnd("nagra", "shared", bytes(range(60, 100))))
    refuse("Tenant nagra has another key with the key ID shared")
    enter(service, RSA.jwk(), EC.jwk())
    existing = add_public_key(EC, state="staged")
    refuse("Tenant nagra has the key ES256, but not without limits: it is staged")
    existing.state, existing.not_after = "active", datetime(2099, 1, 1, tzinfo=UTC)
    existing.save()
    refuse("Not before or Not after")
    enter(service, keys_from="address", key_set_address="https://login.example/keys")
    refuse("The service fetches its keys from an address")
