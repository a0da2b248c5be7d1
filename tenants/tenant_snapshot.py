"""The configuration of a tenant as requests use it: immutable, and shared by all threads."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any

from django.core.exceptions import ValidationError

from providers.contract import KeyKind, KeyRing, Strategy, TrustedKey
from providers.jose import HMAC_BYTES, PUBLIC_KEY_TYPES
from providers.registry import strategies
from tenants.models import IN_FORCE, Key, KeyState, ResourceServer, Service, SigningKey, Tenant
from tenants.secrets.encryption import DecryptionFailed
from tenants.services.settings import clean_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceSnapshot:
    """An enabled service with its strategy and its cleaned settings.

    `keys`: those with which the tenant signs, of the kind that the strategy verifies with.
    """

    id: int
    name: str
    display_name: str
    logo: str
    strategy: Strategy
    settings: Mapping[str, Any] = field(repr=False)  # contains secrets
    keys: KeyRing


@dataclass(frozen=True, slots=True, eq=False)
class TokenRules:
    """The claims and the lifetimes (in seconds) of the tokens: the fields of a tenant with the same names."""

    issuer: str
    audience: str
    access_token_ttl: int
    refresh_token_ttl: int
    sign_on_ttl: int
    refresh_grace: int


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """The limits of a tenant: its fields with the same names. 0: no limit."""

    max_failures_per_address: int
    max_sign_ons_per_account: int
    exempt_networks: tuple[IPv4Network | IPv6Network, ...]

    def is_exempt(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.exempt_networks)


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """A key that signs access tokens. `material` is a private key (ES256) or the secret bytes (HS256)."""

    kid: str
    algorithm: str
    material: Any = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TenantSnapshot:
    """The configuration of an enabled tenant as it was at `version`; immutable.

    `services`: the enabled services by name, sorted. `signer`: the key that signs its access tokens;
    `verification_keys` verifies them, and `jwks` contains the published JWKs. `resource_servers`: the hashes
    of the client secrets by client ID.
    """

    id: str
    version: int
    services: Mapping[str, ServiceSnapshot]
    rules: TokenRules
    limits: Limits
    signer: Signer | None
    verification_keys: KeyRing
    jwks: tuple[Mapping[str, str], ...]
    resource_servers: Mapping[str, bytes]


def load_tenant(tenant_id: str) -> TenantSnapshot | None:
    """Load the tenant from the database; return None if it is unknown or disabled.

    Raises Django's database errors.
    """
    # The five queries do not see the same state of the database. The version is read first: after a change in
    # between it is out of date, and nothing is granted for it.
    tenant = Tenant.objects.filter(pk=tenant_id, enabled=True).first()
    if tenant is None:
        return None
    rings = load_key_rings(tenant.id)
    rows = Service.objects.for_tenant(tenant).filter(enabled=True).order_by("name")
    services = [service for row in rows if (service := _load_service(row, rings)) is not None]
    published = [KeyState.STAGED, KeyState.ACTIVE, KeyState.RETIRING]
    signing_keys = list(
        SigningKey.objects.for_tenant(tenant).filter(state__in=published).order_by("-published_at")
    )
    signers = {signer.kid: signer for signer in map(_load_signer, signing_keys) if signer is not None}
    verification_keys = {kid: _verification_key(signer) for kid, signer in signers.items()}
    rules = {rule.name: getattr(tenant, rule.name) for rule in fields(TokenRules)}
    servers = ResourceServer.objects.for_tenant(tenant).filter(enabled=True)
    for service in services:
        service.strategy.prepare(service.settings, service.keys)
    return TenantSnapshot(
        id=tenant.id,
        version=tenant.version,
        services=MappingProxyType({service.name: service for service in services}),
        rules=TokenRules(**rules | {"audience": tenant.audience or tenant.id}),
        limits=_load_limits(tenant),
        signer=next((signers.get(key.kid) for key in signing_keys if key.state == KeyState.ACTIVE), None),
        verification_keys=KeyRing(tenant.id, MappingProxyType(verification_keys)),
        jwks=tuple(MappingProxyType(key.public_jwk) for key in signing_keys if key.public_jwk),
        resource_servers=MappingProxyType(
            {server.client_id: bytes(server.secret_hash) for server in servers}
        ),
    )


def _load_limits(tenant: Tenant) -> Limits:
    try:
        networks = tuple(map(ip_network, tenant.exempt_networks))
    except ValueError:  # not stored by AGS; the check tenants.W004 names the tenant
        networks = ()
    return Limits(tenant.max_failures_per_address, tenant.max_sign_ons_per_account, networks)


def load_key_rings(tenant_id: str) -> Mapping[KeyKind, KeyRing]:
    """Load the keys with which the tenant signs, as strategies use them.

    They are separated: no strategy can accept a token that was signed with a key of another kind.
    """
    keys: dict[KeyKind, dict[str, TrustedKey]] = {kind: {} for kind in KeyKind}
    for key in Key.objects.for_tenant(tenant_id).order_by("pk"):
        keys[key.kind][key.kid] = _trusted_key(key)
    return {kind: KeyRing(tenant_id, MappingProxyType(ring), _dummy_key(ring)) for kind, ring in keys.items()}


def _dummy_key(keys: Mapping[str, TrustedKey]) -> TrustedKey | None:
    """Return the key for an unknown `kid`, whose check takes as long. For secrets, any other will do."""
    return next((key for key in keys.values() if key.algorithm in PUBLIC_KEY_TYPES), None)


def _load_service(service: Service, rings: Mapping[KeyKind, KeyRing]) -> ServiceSnapshot | None:
    """Return None, and log an error, if the provider is not installed or the settings are invalid."""
    strategy = strategies().get(service.strategy)
    try:
        if strategy is None:
            raise ValidationError("its provider is not installed")
        _, settings = clean_settings(strategy, service.settings_with_secrets())
    except ValidationError as problem:
        log.error(
            "service not offered: %s",
            "; ".join(problem.messages),
            extra={"tenant": service.tenant_id, "service": service.name},
        )
        return None
    return ServiceSnapshot(
        id=service.pk,
        name=service.name,
        display_name=service.display_name,
        logo=service.logo,
        strategy=strategy,
        settings=settings,
        keys=rings[strategy.key_kind],
    )


# For keys that are not in force and cannot be decrypted. Random, so that nobody can sign with it.
_PLACEHOLDER_SECRET = secrets.token_bytes(64)


def _trusted_key(key: Key) -> TrustedKey:
    """Keys that are not in force have their material, too: their use is counted, but never accepted."""
    is_public = key.kind is KeyKind.PUBLIC_KEY
    in_force = key.state in IN_FORCE and (is_public or key.algorithm in HMAC_BYTES)
    material: Any
    try:
        material = key.material()
    except ValueError:
        material = None
        log.error("public key cannot be read", extra={"tenant": key.tenant_id, "kid": key.kid})
    except DecryptionFailed:
        material = None if in_force else _PLACEHOLDER_SECRET
        if in_force:
            log.error("key cannot be decrypted", extra={"tenant": key.tenant_id, "kid": key.kid})
    return TrustedKey(
        id=key.pk,
        kid=key.kid,
        algorithm=key.algorithm,
        material=material,
        in_force=in_force,
        not_before=key.not_before.timestamp() if key.not_before else None,
        not_after=key.not_after.timestamp() if key.not_after else None,
    )


def _load_signer(key: SigningKey) -> Signer | None:
    try:
        return Signer(key.kid, key.algorithm, key.secret())
    except DecryptionFailed:
        log.error("signing key cannot be decrypted", extra={"tenant": key.tenant_id, "kid": key.kid})
        return None


def _verification_key(signer: Signer) -> TrustedKey:
    is_secret = isinstance(signer.material, bytes)
    material = signer.material if is_secret else signer.material.public_key()
    return TrustedKey(id=None, kid=signer.kid, algorithm=signer.algorithm, material=material)
