"""The signing keys of nagra, and its JWK set."""

from __future__ import annotations

from typing import Any

import jwt
from django.test import Client

from tenants import rotation
from tenants.models import SigningKey, Tenant
from tenants.models.signing_key import PUBLICATION_LEAD_TIME
from tenants.snapshot import snapshot
from tests.support.responses import CORRELATION_ID
from tests.support.sign_ons import shift_signing_keys

JWKS_PATH = "/.well-known/jwks.json"


def fetch_jwks(tenant: str = "nagra", **headers: str) -> Any:
    """Request the JWK set, after the server has read the tenant again."""
    snapshot.invalidate("nagra")
    all_headers = {"x-correlation-id": CORRELATION_ID} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return Client().get(JWKS_PATH, {"tenant": tenant}, headers=all_headers)


def get_published_kids(tenant: str = "nagra") -> list[str]:
    return [key["kid"] for key in fetch_jwks(tenant).json()["keys"]]


def verify_with_jwks(token: str, keys: Any = None, tenant: str = "nagra") -> dict[str, Any]:
    """Verify an access token with only the JWK set; return its claims. Raises PyJWT's errors."""
    jwk = jwt.PyJWKSet.from_dict(keys or fetch_jwks(tenant).json())[jwt.get_unverified_header(token)["kid"]]
    payload: dict[str, Any] = jwt.decode(token, jwk, ["ES256"], audience=tenant, issuer="ags")
    return payload


def get_signing_key(state: str) -> SigningKey:
    return SigningKey.objects.for_tenant("nagra").get(state=state)


def get_states() -> list[str]:
    """The states of the keys of nagra, in the order of their creation."""
    return list(SigningKey.objects.for_tenant("nagra").order_by("pk").values_list("state", flat=True))


def set_algorithm(algorithm: str) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = algorithm
    tenant.save()


def activate_standby() -> SigningKey:
    """Wait until the standby key may sign, and activate it."""
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    return rotation.perform_next_step("nagra")[1]


def stage_shared_secret(secret: bytes | None = None) -> SigningKey:
    """Stage an HS256 key for nagra."""
    set_algorithm("HS256")
    return rotation.perform_next_step("nagra", secret=secret)[1]
