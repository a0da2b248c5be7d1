"""Public keys of a tenant have the life of shared secrets, and only `signed_jwt` verifies with them."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction

from tenants.models import Key, Service
from tenants.revocation import revoke_issued
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.operators import add_key, add_public_key
from tests.support.signed_jwt import redeem, send_token
from tests.support.tokens import make_claims
from tests.support.upstream.signer import ALGORITHMS, sign_with_secret, signer
from tests.support.upstream.signer import token as any_token

EC = signer("ES256")
RSA = signer("RS256")
PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


def reason(response: Any, caplog: pytest.LogCaptureFixture) -> str:
    """Return the reason in the log: the response does not contain it."""
    assert response.status_code == 401
    assert response.json()["reason"] == "not_authenticated"
    return str([getattr(record, "reason", None) for record in caplog.records][-1])


# Acceptance


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["pem", "certificate", "jwk", "a jwk without kid and alg"])
def test_a_token_is_accepted_with_each_algorithm_and_form_of_a_key(
    nagra: HeadEnd, signed_jwt: Service, algorithm: str, form: str
) -> None:
    own = signer(algorithm)
    bare = {name: value for name, value in own.jwk().items() if name not in ("kid", "alg")}
    texts = {"pem": own.pem, "certificate": own.certificate, "jwk": json.dumps(own.jwk())}
    stored = Key(tenant_id="nagra", kid=own.kid, algorithm=algorithm, state="active")
    stored.set_public_key(texts.get(form) or json.dumps(bare))
    stored.save()
    assert stored.public_key == own.pem
    assert send_token(nagra, own.token(make_claims())).status_code == 200
    assert send_token(nagra, own.token(make_claims(), kid="other")).status_code == 401


@pytest.mark.parametrize("fields", [{"state": "retiring"}, {"not_before": PAST, "not_after": FUTURE}])
def test_a_key_is_accepted_in_its_time(nagra: HeadEnd, signed_jwt: Service, fields: dict[str, Any]) -> None:
    add_public_key(EC, **fields)
    assert send_token(nagra, EC.token(make_claims())).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{"state": "staged"}, {"state": "revoked"}, {"not_after": PAST}, {"not_before": FUTURE}],
    ids=str,
)
def test_a_key_that_is_not_in_force_is_refused(
    nagra: HeadEnd, signed_jwt: Service, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO)
    add_public_key(EC, **fields)
    assert reason(send_token(nagra, EC.token(make_claims())), caplog) == "key_not_in_force"
    forged = signer("ES256", "forger").token(make_claims(), kid=EC.kid)
    assert reason(send_token(nagra, forged), caplog) == "key_not_in_force", "also with an invalid signature"


def test_refused_tokens(nagra: HeadEnd, signed_jwt: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    add_public_key(EC)
    add_public_key(RSA)
    forged = signer("ES256", "forger").token(make_claims(), kid=EC.kid)
    assert reason(send_token(nagra, forged), caplog) == "signature_invalid"
    assert reason(send_token(nagra, signer("ES256", "x").token(make_claims())), caplog) == "key_unknown"
    assert reason(send_token(nagra, EC.token(make_claims(), kid=RSA.kid)), caplog) == "algorithm_mismatch"
    confused = any_token({"alg": "HS256", "kid": EC.kid}, make_claims(), sign_with_secret(EC.pem.encode()))
    assert reason(send_token(nagra, confused), caplog) == "algorithm_mismatch"


def test_keys_of_one_kind_are_unknown_to_strategies_of_the_other(
    nagra: HeadEnd, signed_jwt: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_public_key(EC)
    add_key(HeadEnd("nagra", "shared", bytes(range(50, 90))))
    shared_secret = any_token(
        {"alg": "HS256", "kid": "shared"}, make_claims(), sign_with_secret(bytes(range(50, 90)))
    )
    assert reason(send_token(nagra, shared_secret), caplog) == "key_unknown"
    operator_token = EC.token(nagra.claims())
    assert reason(send_token(nagra, operator_token, SERVICE), caplog) == "key_unknown"
    assert nagra.present(nagra.token()).status_code == 200


def test_keys_of_another_tenant_are_unknown(
    nagra: HeadEnd, sunrise: HeadEnd, signed_jwt: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_public_key(EC, "sunrise")
    assert reason(send_token(nagra, EC.token(make_claims())), caplog) == "key_unknown"


def test_a_jti_is_accepted_once_for_each_key(nagra: HeadEnd, signed_jwt: Service) -> None:
    other = signer("ES256", "other")
    add_public_key(EC)
    add_public_key(other)
    assert send_token(nagra, EC.token(make_claims(jti="j"))).status_code == 200
    assert send_token(nagra, EC.token(make_claims(jti="j"))).json()["reason"] == "replayed"
    assert send_token(nagra, other.token(make_claims(jti="j"))).status_code == 200


# Revocation


def test_revoking_a_key_ends_its_unredeemed_session_tokens(nagra: HeadEnd, signed_jwt: Service) -> None:
    other = signer("ES256", "other")
    key_of_ec = add_public_key(EC)
    add_public_key(other)
    app = ClientApp(nagra)
    mine, others = (
        send_token(nagra, own.token(make_claims(sub=own.kid))).json()["sessionToken"] for own in (EC, other)
    )
    key_of_ec.state = "revoked"
    key_of_ec.save()
    assert redeem(app, mine).status_code == 401
    assert redeem(app, others).status_code == 201
    assert send_token(nagra, EC.token(make_claims())).status_code == 401


def test_revoking_what_a_key_issued(nagra: HeadEnd, signed_jwt: Service) -> None:
    key_of_ec = add_public_key(EC)
    app = ClientApp(nagra)
    issued = [send_token(nagra, EC.token(make_claims())).json()["sessionToken"] for _ in range(2)]
    tokens = redeem(app, issued[0]).json()
    revoke_issued(key_of_ec)
    assert redeem(app, issued[1]).status_code == 401
    assert app.refresh(tokens["refresh_token"]).status_code == 401
    assert send_token(nagra, EC.token(make_claims())).status_code == 200


# What is stored


def test_the_database_stores_a_secret_or_a_public_key(nagra: HeadEnd) -> None:
    add_public_key(EC)
    rows: list[tuple[str, dict[str, Any]]] = [
        (EC.kid, {"sealed_secret": b"x"}),
        (EC.kid, {"public_key": ""}),
        (EC.kid, {"algorithm": "HS256"}),
        (nagra.kid, {"public_key": EC.pem}),
        (nagra.kid, {"algorithm": "ES256"}),
        (nagra.kid, {"sealed_secret": b""}),
    ]
    for kid, change in rows:
        with pytest.raises(IntegrityError), transaction.atomic():
            Key.objects.for_tenant("nagra").filter(kid=kid).update(**change)


def test_a_public_key_is_immutable(nagra: HeadEnd) -> None:
    stored = add_public_key(EC)
    stored.set_public_key(signer("ES256", "x").pem)
    with pytest.raises(ValidationError, match="create a new key to rotate"):
        stored.save()


def test_a_stored_key_that_cannot_be_read(nagra: HeadEnd, signed_jwt: Service, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    add_public_key(EC)
    add_public_key(RSA)
    Key.objects.for_tenant("nagra").filter(kid=EC.kid).update(public_key="x")
    assert reason(send_token(nagra, EC.token(make_claims())), caplog) == "key_unreadable"
    assert send_token(nagra, RSA.token(make_claims())).status_code == 200
    (message,) = run_checks(tags=[Tags.database], databases=["default"])
    assert message.id == "tenants.W003"
    assert message.msg.startswith("tenant 'nagra', key 'ES256': It is not a public key")


def test_reseal_skips_public_keys(nagra: HeadEnd) -> None:
    add_public_key(EC)
    out = io.StringIO()
    call_command("reseal", stdout=out)
    assert out.getvalue() == "0 re-encrypted\n"
