"""Access and refresh tokens, both JWTs.

Access tokens are signed with the tenant's signing key, for anyone with its JWKS. Refresh tokens are signed
with a key that only AGS can derive, so that neither kind can be used as the other.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import jwt

from ags.sessions.exceptions import NoActiveSigningKey, RejectReason, TokenRejected
from providers.contract import KeyRing, TrustedKey, VerificationFailed, current_time
from providers.jose import verify_jws
from tenants.secrets.encryption import derive_keys, fingerprint
from tenants.tenant_snapshot import TenantSnapshot

ID_LENGTH = 32
"""Characters of the ID of a sign-on, a device or an access token."""

MAX_TIMESTAMP = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The latest time that a database can hold."""

CLAIMS_VERSION = "1.0"
ACCESS_TYP = "DevAuthN"
REFRESH_TYP = "RefreshAuthN"


@dataclass(frozen=True, slots=True)
class SignOn:
    """A device that is signed on, until it signs out, the sign-on is revoked, or it reaches its fixed end.

    This is the content of its tokens. Times are in seconds since the epoch.
    """

    account_id: str = field(repr=False)
    client_id: str
    id: str
    generation: int
    refresh_expires_at: float
    fixed_expires_at: float


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A JWT with which a client app calls the resource servers of the operator.

    Its signature is valid, and it has not expired. The database decides if it is still valid.
    """

    sign_on: str
    jti: str
    claims: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A JWT with which a client app gets new tokens from AGS. Each refresh replaces it.

    Its signature is valid. It may have expired.
    """

    sign_on: str
    generation: int
    expires_at: float
    claims: dict[str, Any] = field(repr=False)


def require_signing_key(tenant: TenantSnapshot) -> None:
    """Raise `NoActiveSigningKey` if tokens cannot be signed. Call before a proof or token is consumed."""
    if tenant.signer is None:
        raise NoActiveSigningKey


def token_response(tenant: TenantSnapshot, sign_on: SignOn) -> dict[str, Any]:
    """Return the response of RFC 6749, section 5.1. Raises `NoActiveSigningKey`."""
    now = current_time()
    issued_at = int(now)
    expires_at = min(issued_at + tenant.rules.access_token_ttl, int(sign_on.fixed_expires_at))
    return {
        "access_token": _build_access_token(tenant, sign_on, issued_at, expires_at),
        "refresh_token": _build_refresh_token(tenant, sign_on),
        "token_type": "bearer",
        "client_id": sign_on.client_id,
        "accountId": sign_on.account_id,
        "expires_in": max(expires_at - issued_at, 0),
        "refresh_expires_in": max(round(sign_on.refresh_expires_at - now), 0),
        "fixed_refresh_expires_in": max(round(sign_on.fixed_expires_at - now), 0),
    }


def read_access_token(tenant: TenantSnapshot, token: str) -> AccessToken:
    """Raises `TokenRejected`."""
    claims = _verify(token, tenant.verification_keys, ACCESS_TYP)
    match claims:
        case {
            "sid": str(sign_on),
            "jti": str(jti),
            "exp": int(expires),
            "accountId": str(),
            "deviceId": str(),
        } if len(sign_on) == len(jti) == ID_LENGTH and expires <= MAX_TIMESTAMP:
            if expires <= current_time():
                raise TokenRejected(RejectReason.TOKEN_EXPIRED)
            return AccessToken(sign_on, jti, claims)
    # A platform that shares an HS256 secret can sign other claims than AGS.
    raise TokenRejected(RejectReason.TOKEN_MALFORMED)


def read_refresh_token(tenant: TenantSnapshot, token: str) -> RefreshToken:
    """Verify the token, except for its expiration. Raises `TokenRejected`."""
    claims = _verify(token, _refresh_key_ring(tenant.id), REFRESH_TYP)
    sign_on, _, generation = claims["jti"].partition(".")
    return RefreshToken(sign_on, int(generation), claims["exp"], claims)


def _common_claims(tenant: TenantSnapshot, sign_on: SignOn, typ: str) -> dict[str, Any]:
    return {
        "typ": typ,
        "ver": CLAIMS_VERSION,
        "tenantId": tenant.id,
        "accountId": sign_on.account_id,
        "userId": sign_on.account_id,
        "deviceId": sign_on.client_id,
    }


def _build_access_token(tenant: TenantSnapshot, sign_on: SignOn, issued_at: int, expires_at: int) -> str:
    signer = tenant.signer
    if signer is None:
        raise NoActiveSigningKey
    claims = {
        **_common_claims(tenant, sign_on, ACCESS_TYP),
        "sid": sign_on.id,
        "jti": uuid4().hex,
        "iat": issued_at,
        "exp": expires_at,
        "iss": tenant.rules.issuer,
        "aud": tenant.rules.audience,
    }
    return _sign(claims, signer.material, signer.algorithm, signer.kid)


def _build_refresh_token(tenant: TenantSnapshot, sign_on: SignOn) -> str:
    # Deterministic for a sign-on and a generation, so that tokens need not be stored.
    key = derive_keys(b"refresh token")[0]
    claims = {
        **_common_claims(tenant, sign_on, REFRESH_TYP),
        "jti": f"{sign_on.id}.{sign_on.generation}",
        "exp": int(sign_on.refresh_expires_at),
        "fixed_exp": int(sign_on.fixed_expires_at),
    }
    return _sign(claims, key, "HS256", fingerprint(key))


_jws = jwt.PyJWS()

# With escapes, a token with an account ID of 255 characters could exceed the limits for requests.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _sign(claims: dict[str, Any], material: Any, algorithm: str, kid: str) -> str:
    return _jws.encode(_encode(claims).encode(), material, algorithm, {"kid": kid})


def _refresh_key_ring(tenant_id: str) -> KeyRing:
    keys = {fingerprint(key): key for key in derive_keys(b"refresh token")}
    trusted = {kid: TrustedKey(None, kid, "HS256", key) for kid, key in keys.items()}
    return KeyRing(tenant_id, MappingProxyType(trusted))


def _verify(token: str, keys: KeyRing, typ: str) -> dict[str, Any]:
    try:
        claims = verify_jws(token, keys, current_time()).claims
    except VerificationFailed:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED) from None
    if claims.get("typ") != typ or claims.get("tenantId") != keys.tenant:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED)
    return claims
