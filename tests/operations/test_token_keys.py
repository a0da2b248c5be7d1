"""A token with a `jti` is accepted once, also if its service changes where its keys are from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from ags.sessions.models import SessionToken
from ags.sessions.services.replays import known_replays
from tenants.models import Key, Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import SIGNED, add_public_key, add_signed_jwt_service
from tests.support.signed_jwt import redeem, send_token
from tests.support.tokens import ENTERED, make_claims
from tests.support.upstream.signer import signer

EC, RSA = signer("ES256"), signer("RS256")
REPLAYED = (401, "replayed")


@pytest.fixture
def service(nagra: HeadEnd) -> Service:
    return add_signed_jwt_service(settings=ENTERED)


def change(keys_from: str, name: str = SIGNED) -> None:
    service = Service.objects.for_tenant("nagra").get(name=name)
    service.settings = {**service.settings, "keys_from": keys_from}
    service.save()


def apply_with_key(path: Path) -> None:
    """Apply a file with the key, in which the service uses the keys of the tenant."""
    settings = Service.objects.for_tenant("nagra").get(name=SIGNED).settings
    service = {"name": SIGNED, "strategy": "signed_jwt", "settings": {**settings, "keys_from": "tenant"}}
    key = {"kid": EC.kid, "algorithm": "ES256", "state": "active", "public_key": EC.pem}
    path.write_text(yaml.safe_dump({"tenants": [{"id": "nagra", "services": [service], "keys": [key]}]}))
    call_command("apply", str(path), stdout=io.StringIO())


def add_second() -> None:
    second = Service.objects.for_tenant("nagra").get(name=SIGNED)
    second.pk, second.name = None, "Second"
    second._state.adding = True
    second.save()


def new_token(jti: str, own: Any = EC) -> str:
    token: str = own.token(make_claims(jti=jti))
    return token


def accept(nagra: HeadEnd, token: str) -> str:
    response = send_token(nagra, token)
    assert response.status_code == 200, response.json()
    session_token: str = response.json()["sessionToken"]
    return session_token


def send(nagra: HeadEnd, token: str) -> tuple[int, str | None]:
    """Send it to a process that has not rejected it yet."""
    known_replays.clear()
    response = send_token(nagra, token)
    return response.status_code, response.json().get("reason")


def revoke(key: Key) -> None:
    key.state = "revoked"
    key.save()


@pytest.mark.usefixtures("service")
class TestToTheKeysOfTheTenant:
    def test_by_hand(self, nagra: HeadEnd) -> None:
        token = new_token("j")
        accept(nagra, token)
        add_public_key(EC)
        change("tenant")
        assert send(nagra, token) == REPLAYED

    def test_by_the_command(self, nagra: HeadEnd) -> None:
        token = new_token("j")
        accept(nagra, token)
        call_command("move_public_keys", "nagra", SIGNED, stdout=io.StringIO())
        assert send(nagra, token) == REPLAYED

    def test_by_a_file_with_the_keys(self, nagra: HeadEnd, tmp_path: Path) -> None:
        token = new_token("j")
        accept(nagra, token)
        apply_with_key(tmp_path / "tenants.yaml")
        assert send(nagra, token) == REPLAYED

    def test_before_the_key_is_added(self, nagra: HeadEnd) -> None:
        token = new_token("j")
        accept(nagra, token)
        change("tenant")
        assert send(nagra, token)[0] == 401
        add_public_key(EC)
        assert send(nagra, token) == REPLAYED

    def test_revoking_the_key_refuses_session_tokens_from_before(self, nagra: HeadEnd) -> None:
        app, session_token = ClientApp(nagra), accept(nagra, EC.token(make_claims()))
        key = add_public_key(EC)
        change("tenant")
        revoke(key)
        assert redeem(app, session_token).status_code == 401


@pytest.mark.usefixtures("service")
class TestBackToEnteredKeys:
    def test_tokens_from_before_and_from_in_between(self, nagra: HeadEnd) -> None:
        app, before, between, redeemed = ClientApp(nagra), *(new_token(jti) for jti in "abc")
        accept(nagra, before)
        call_command("move_public_keys", "nagra", SIGNED, stdout=io.StringIO())
        accept(nagra, between)
        assert redeem(app, accept(nagra, redeemed)).status_code == 201
        change("entered")
        assert [send(nagra, token) for token in (before, between, redeemed)] == [REPLAYED] * 3
        change("tenant")
        assert [send(nagra, token) for token in (before, between, redeemed)] == [REPLAYED] * 3

    def test_the_same_jti_with_two_keys(self, nagra: HeadEnd) -> None:
        call_command("move_public_keys", "nagra", SIGNED, stdout=io.StringIO())
        tokens = [new_token("j", own) for own in (EC, RSA)]
        for token in tokens:
            accept(nagra, token)
        change("entered")
        assert [send(nagra, token) for token in tokens] == [REPLAYED] * 2

    def test_a_session_token_of_a_revoked_key_remains_refused(self, nagra: HeadEnd) -> None:
        app = ClientApp(nagra)
        call_command("move_public_keys", "nagra", SIGNED, stdout=io.StringIO())
        key = Key.unscoped.get(kid=EC.kid)
        session_tokens = [accept(nagra, new_token(own.kid, own)) for own in (EC, RSA)]
        revoke(key)
        change("entered")
        assert [redeem(app, token).status_code for token in session_tokens] == [401, 201]

    def test_everything_issued_before_a_revocation_remains_refused(self, nagra: HeadEnd) -> None:
        call_command("move_public_keys", "nagra", SIGNED, stdout=io.StringIO())
        app, session_token = ClientApp(nagra), accept(nagra, new_token("j"))
        key = Key.unscoped.get(kid=EC.kid)
        key.save_restriction(revoked_before=SessionToken.unscoped.get().created_at)
        change("entered")
        assert redeem(app, session_token).status_code == 401


def test_the_tokens_of_other_services_do_not_change(nagra: HeadEnd, service: Service) -> None:
    add_second()
    body = {"parameters": [{"name": "Token", "value": new_token("j")}]}
    assert nagra.post(body, x_auth_service_id="Second").status_code == 200
    key = add_public_key(EC)
    changes = [(SIGNED, "tenant", None), ("Second", "tenant", key.pk), (SIGNED, "entered", key.pk)]
    for name, keys_from, expected in changes:
        change(keys_from, name)
        assert SessionToken.unscoped.get().key_id == expected
