"""Forged tokens, and tokens of another type or tenant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tenants.models import SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import create_platform
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response
from tests.support.sign_ons import decode_claims, get_events, sign_refresh_claims, sign_with_tenant_key

# Forged and confused tokens


def b64(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def without_signature(token: str, alg: str) -> str:
    return f"{b64(jwt.get_unverified_header(token) | {'alg': alg})}.{b64(decode_claims(token))}.AAAA"


def tampered(token: str, **payload: Any) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{b64(decode_claims(token) | payload)}.{signature}"


def with_public_key(app: ClientApp, token: str, form: PublicFormat, encoding: Encoding) -> str:
    """Sign with HS256 and the public key as the secret (RFC 8725, 2.1)."""
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    secret = key.secret().public_key().public_bytes(encoding, form)
    signed = f"{b64({'alg': 'HS256', 'kid': key.kid})}.{b64(decode_claims(token))}"
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def sign_with_another_key(payload: dict[str, Any], **header: str) -> str:
    kid = SigningKey.objects.for_tenant("nagra").get(state="active").kid
    key = SigningKey.generate(Tenant(id="nagra"))
    return jwt.encode(payload, key.secret(), "ES256", {"kid": kid, **header})


def sign_with_head_end_key(app: ClientApp, payload: dict[str, Any]) -> str:
    return jwt.encode(payload, app.head_end.secret, "HS256", {"kid": app.head_end.kid})


def with_signature_of_zeros(token: str) -> str:
    """Append an ECDSA signature of zeros, which some libraries have accepted (CVE-2022-21449)."""
    return token.rpartition(".")[0] + "." + "A" * 86


Make = Callable[[ClientApp, str, str], str]
REFRESH, ACCESS, BOTH = ("refresh",), ("sign-out", "introspection"), ("refresh", "sign-out", "introspection")
DER = (PublicFormat.SubjectPublicKeyInfo, Encoding.DER)
PEM = (PublicFormat.SubjectPublicKeyInfo, Encoding.PEM)
POINT = (PublicFormat.UncompressedPoint, Encoding.X962)

INVALID_TOKENS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "an access token": (lambda app, a, r: a, REFRESH),
    "a refresh token": (lambda app, a, r: r, ("sign-out",)),
    "garbage": (lambda app, a, r: "garbage", BOTH),
    "two parts": (lambda app, a, r: a.rpartition(".")[0], BOTH),
    "letters of another script": (lambda app, a, r: "\u00e4.\u00e4.\u00e4", BOTH),
    "too long": (lambda app, a, r: a + "A" * 8192, BOTH),
    "an operator token": (lambda app, a, r: app.head_end.token(), BOTH),
    "access claims, signed by the head-end": (
        lambda app, a, r: sign_with_head_end_key(app, decode_claims(a)),
        BOTH,
    ),
    "refresh claims, signed by the head-end": (
        lambda app, a, r: sign_with_head_end_key(app, decode_claims(r)),
        BOTH,
    ),
    "access claims under the key of refresh tokens": (
        lambda app, a, r: sign_refresh_claims(decode_claims(a)),
        BOTH,
    ),
    "refresh claims under the key of access tokens": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(r)),
        BOTH,
    ),
    "refresh claims with the typ of access tokens": (
        lambda app, a, r: sign_refresh_claims(decode_claims(r) | {"typ": "DevAuthN"}),
        BOTH,
    ),
    "access claims with the typ of refresh tokens": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"typ": "RefreshAuthN"}),
        BOTH,
    ),
    "no typ": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "typ": None}), BOTH),
    "another tenant's claims": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "tenantId": "sunrise"}),
        BOTH,
    ),
    "refresh claims of another tenant": (
        lambda app, a, r: sign_refresh_claims({**decode_claims(r), "tenantId": "sunrise"}),
        BOTH,
    ),
    "alg none": (lambda app, a, r: without_signature(a, "none"), BOTH),
    "alg none for a refresh token": (lambda app, a, r: without_signature(r, "none"), BOTH),
    "an empty signature": (lambda app, a, r: a.rpartition(".")[0] + ".", BOTH),
    "a signature of zeros": (lambda app, a, r: with_signature_of_zeros(a), BOTH),
    "the public key in DER as a secret": (lambda app, a, r: with_public_key(app, a, *DER), BOTH),
    "the public key in PEM as a secret": (lambda app, a, r: with_public_key(app, a, *PEM), BOTH),
    "the point of the public key as a secret": (lambda app, a, r: with_public_key(app, a, *POINT), BOTH),
    "the public key as the secret of a refresh token": (
        lambda app, a, r: with_public_key(app, r, *DER),
        BOTH,
    ),
    "another key under the same kid": (lambda app, a, r: sign_with_another_key(decode_claims(a)), BOTH),
    "an unknown kid": (lambda app, a, r: sign_with_tenant_key(decode_claims(a), kid="unknown"), BOTH),
    "the header has crit": (lambda app, a, r: sign_with_tenant_key(decode_claims(a), crit=["exp"]), BOTH),
    "another key, at an address that the header names": (
        lambda app, a, r: sign_with_another_key(decode_claims(a), jku="https://x"),
        BOTH,
    ),
    "another account": (lambda app, a, r: tampered(a, accountId="another"), BOTH),
    "a later exp": (lambda app, a, r: tampered(a, exp=9_999_999_999), BOTH),
    "a refresh token with a later exp": (lambda app, a, r: tampered(r, exp=9_999_999_999), BOTH),
    "an access token that has expired": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": int(time.time()) - 1}),
        BOTH,
    ),
    "exp is a string": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": "9999999999"}),
        BOTH,
    ),
    "exp after the year 9999": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": 10**12}),
        BOTH,
    ),
    "no exp": (
        lambda app, a, r: sign_with_tenant_key({n: v for n, v in decode_claims(a).items() if n != "exp"}),
        BOTH,
    ),
    "no sign-on": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": ""}), BOTH),
    "a sign-on that is a number": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": 1}),
        BOTH,
    ),
    "a jti that is too long": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "jti": "x" * 33}),
        BOTH,
    ),
    "an unknown sign-on": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": "x" * 32, "jti": "y" * 32}),
        BOTH,
    ),
    "no device": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "deviceId": None}), BOTH),
    "no account": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "accountId": None}), BOTH),
    "a payload that is no object": (
        lambda app, a, r: jwt.api_jws.encode(
            b"[]",
            SigningKey.objects.for_tenant("nagra").get(state="active").secret(),
            "ES256",
            {"kid": SigningKey.objects.for_tenant("nagra").get(state="active").kid},
        ),
        BOTH,
    ),
}


@pytest.mark.parametrize(("make", "endpoints"), INVALID_TOKENS.values(), ids=INVALID_TOKENS)
def test_a_forged_or_confused_token_is_rejected_everywhere(
    signed_on: ClientApp, make: Make, endpoints: tuple[str, ...]
) -> None:
    resource_server = create_platform("nagra")
    token = make(signed_on, signed_on.tokens["access_token"], signed_on.tokens["refresh_token"])
    if "refresh" in endpoints:
        assert full_response(signed_on.refresh(token, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    if "sign-out" in endpoints:
        assert full_response(signed_on.sign_out(token, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    if "introspection" in endpoints:
        answer = resource_server.introspect(token, hint="refresh_token")
        assert (answer.status_code, answer.json()) == (200, {"active": False})
        assert resource_server.revoke(token).status_code == 200
    assert resource_server.is_active(signed_on.tokens["access_token"]), "the rejected token has no effect"
    assert signed_on.refresh().status_code == 200
    assert signed_on.sign_out().status_code == 200
    assert get_events() == []


def test_a_token_of_another_tenant_is_rejected_everywhere(signed_on: ClientApp, sunrise: HeadEnd) -> None:
    theirs = ClientApp(sunrise)
    snapshot.invalidate("sunrise")
    theirs.sign_on()
    resource_server = create_platform("nagra")
    assert (
        full_response(signed_on.refresh(theirs.tokens["refresh_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    assert (
        full_response(signed_on.sign_out(theirs.tokens["access_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    for token in (theirs.tokens["access_token"], theirs.tokens["refresh_token"]):
        assert resource_server.introspect(token, hint="refresh_token").json() == {"active": False}
        assert resource_server.revoke(token).status_code == 200
    assert theirs.refresh().status_code == 200
    assert theirs.sign_out().status_code == 200


def test_a_platform_with_the_shared_secret_cannot_sign_refresh_tokens(app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get(state="active").delete()
    secret = bytes(range(200, 232))
    key = SigningKey.generate(tenant, state="active", secret=secret)
    key.save()
    app.sign_on()
    payload = decode_claims(app.tokens["refresh_token"])
    newer = payload | {"jti": payload["jti"].replace(".0", ".7")}
    for forged in (
        jwt.encode(payload, secret, "HS256", {"kid": key.kid}),
        jwt.encode(newer, secret, "HS256", {"kid": key.kid}),
        jwt.encode(
            payload, secret, "HS256", {"kid": jwt.get_unverified_header(app.tokens["refresh_token"])["kid"]}
        ),
    ):
        assert full_response(app.refresh(forged, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert app.refresh().status_code == 200
