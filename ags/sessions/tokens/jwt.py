"""The two JWTs that a client app is given: signed here and nowhere else, and read here again.

An access token is signed with the tenant's own key, for whoever has the tenant's key set. A refresh token is
for AGS alone: it is signed with a key that only AGS can derive, so that nobody can take one for the other.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import jwt

from ags.sessions.exceptions import NoActiveSigningKey, RejectReason, TokenRejected
from providers.contract import KeyRing, TrustedKey, VerificationFailed
from providers.jose import verify_jws
from tenants.secrets.encryption import derive_keys, fingerprint
from tenants.tenant_snapshot import TenantSnapshot

ID_LENGTH = 32
"""Characters of what names a sign-on, a device or an access token."""

LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""What a database can hold."""

VERSION = "1.0"
ACCESS = "DevAuthN"
REFRESH = "RefreshAuthN"


@dataclass(frozen=True, slots=True)
class SignOn:
    """A sign-on, as its tokens tell of it. Moments are in seconds since the epoch."""

    account_id: str = field(repr=False)
    client_id: str
    id: str
    generation: int
    refresh_expires_at: float
    fixed_expires_at: float


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token whose signature and times hold. Whether it still stands, the database says."""

    sign_on: str
    jti: str
    claims: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token whose signature holds."""

    sign_on: str
    generation: int
    expires_at: float
    claims: dict[str, Any] = field(repr=False)


def require_signing_key(tenant: TenantSnapshot) -> None:
    """Make sure that tokens can be signed before something is spent for them. Raises `NoActiveSigningKey`."""
    if tenant.signer is None:
        raise NoActiveSigningKey


def token_response(tenant: TenantSnapshot, sign_on: SignOn) -> dict[str, Any]:
    """Return what a client app is given. Raises `NoActiveSigningKey`."""
    now = time.time()
    issued_at = int(now)
    expires_at = min(issued_at + tenant.rules.access_token_ttl, int(sign_on.fixed_expires_at))
    return {
        "access_token": _access_token(tenant, sign_on, issued_at, expires_at),
        "refresh_token": _refresh_token(tenant, sign_on),
        "token_type": "bearer",
        "client_id": sign_on.client_id,
        "accountId": sign_on.account_id,
        "expires_in": max(expires_at - issued_at, 0),
        "refresh_expires_in": max(round(sign_on.refresh_expires_at - now), 0),
        "fixed_refresh_expires_in": max(round(sign_on.fixed_expires_at - now), 0),
    }


def read_access_token(tenant: TenantSnapshot, token: str) -> AccessToken:
    """Return what an access token of that tenant says. Raises `TokenRejected`."""
    claims = _proven(token, tenant.verification_keys, ACCESS)
    match claims:
        case {
            "sid": str(sign_on),
            "jti": str(jti),
            "exp": int(expires),
            "accountId": str(),
            "deviceId": str(),
        } if len(sign_on) == len(jti) == ID_LENGTH and expires <= LATEST:
            if expires <= time.time():
                raise TokenRejected(RejectReason.TOKEN_EXPIRED)
            return AccessToken(sign_on, jti, claims)
    # A platform that shares an HS256 secret can sign what we never would.
    raise TokenRejected(RejectReason.TOKEN_MALFORMED)


def read_refresh_token(tenant: TenantSnapshot, token: str) -> RefreshToken:
    """Return what a refresh token of that tenant says; it may have expired. Raises `TokenRejected`."""
    claims = _proven(token, _refresh_ring(tenant.id), REFRESH)
    sign_on, _, generation = claims["jti"].partition(".")
    return RefreshToken(sign_on, int(generation), claims["exp"], claims)


def _claims(tenant: TenantSnapshot, sign_on: SignOn, typ: str) -> dict[str, Any]:
    return {
        "typ": typ,
        "ver": VERSION,
        "tenantId": tenant.id,
        "accountId": sign_on.account_id,
        "userId": sign_on.account_id,
        "deviceId": sign_on.client_id,
    }


def _access_token(tenant: TenantSnapshot, sign_on: SignOn, issued_at: int, expires_at: int) -> str:
    signer = tenant.signer
    if signer is None:
        raise NoActiveSigningKey
    claims = {
        **_claims(tenant, sign_on, ACCESS),
        "sid": sign_on.id,
        "jti": uuid4().hex,
        "iat": issued_at,
        "exp": expires_at,
        "iss": tenant.rules.issuer,
        "aud": tenant.rules.audience,
    }
    return _signed(claims, signer.material, signer.algorithm, signer.kid)


def _refresh_token(tenant: TenantSnapshot, sign_on: SignOn) -> str:
    # The same sign-on and generation give the same token, to the byte: nothing of it has to be stored.
    key = derive_keys(b"refresh token")[0]
    claims = {
        **_claims(tenant, sign_on, REFRESH),
        "jti": f"{sign_on.id}.{sign_on.generation}",
        "exp": int(sign_on.refresh_expires_at),
        "fixed_exp": int(sign_on.fixed_expires_at),
    }
    return _signed(claims, key, "HS256", fingerprint(key))


class _UTF8(json.JSONEncoder):
    """Writes characters as they are: escaped, an account ID of 255 could outgrow what may be sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


def _signed(claims: dict[str, Any], material: Any, algorithm: str, kid: str) -> str:
    return jwt.encode(claims, material, algorithm, {"kid": kid}, json_encoder=_UTF8)


def _refresh_ring(tenant_id: str) -> KeyRing:
    keys = {fingerprint(key): key for key in derive_keys(b"refresh token")}
    trusted = {kid: TrustedKey(None, kid, "HS256", key) for kid, key in keys.items()}
    return KeyRing(tenant_id, MappingProxyType(trusted))


def _proven(token: str, keys: KeyRing, typ: str) -> dict[str, Any]:
    try:
        claims = verify_jws(token, keys, time.time()).claims
    except VerificationFailed:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED) from None
    if claims.get("typ") != typ or claims.get("tenantId") != keys.tenant:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED)
    return claims
