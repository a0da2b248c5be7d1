"""What requests read of a tenant: immutable, prepared once, shared by all threads.

How fresh a view is, is for `tenants/snapshot.py` to say.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.core.exceptions import ValidationError

from providers.contract import KeyRing, Strategy, TrustedKey
from providers.jose import HMAC_BYTES
from providers.registry import strategies
from tenants.models import IN_FORCE, Key, KeyState, ResourceServer, Service, SigningKey, Tenant
from tenants.secrets.encryption import DecryptionFailed
from tenants.services.settings import clean_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceSnapshot:
    """An enabled service, its strategy resolved and its settings cleaned."""

    id: int
    name: str
    display_name: str
    logo: str
    strategy: Strategy
    settings: Mapping[str, Any] = field(repr=False)  # secrets are among them


@dataclass(frozen=True, slots=True, eq=False)
class TokenRules:
    """What the tokens of a tenant say, and how long they are good, in seconds."""

    issuer: str
    audience: str
    access_token_ttl: int
    refresh_token_ttl: int
    sign_on_ttl: int
    refresh_grace: int


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """The key that signs the access tokens of a tenant: a private key, or the bytes of a secret."""

    kid: str
    algorithm: str
    material: Any = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TenantSnapshot:
    """An enabled tenant as of `version`: its enabled services by name, in order, and all its keys.

    `keys` are those that it signs with; `signer` signs for it, `own_keys` verify what was signed for it, and
    `key_set` is what of them is published. `resource_servers` has the hash of a secret by client ID.
    """

    id: str
    version: int
    services: Mapping[str, ServiceSnapshot]
    keys: KeyRing
    rules: TokenRules
    signer: Signer | None
    own_keys: KeyRing
    key_set: tuple[Mapping[str, str], ...]
    resource_servers: Mapping[str, bytes]


def read(tenant_id: str) -> TenantSnapshot | None:
    """Return the tenant as the database has it, or None when it is unknown or disabled.

    Raises Django's database errors.
    """
    # Five statements, five moments. The version comes first: a change in between then shows as a version
    # gone by, which no grant accepts.
    tenant = Tenant.objects.filter(pk=tenant_id, enabled=True).first()
    if tenant is None:
        return None
    services = Service.objects.for_tenant(tenant).filter(enabled=True).order_by("name")
    views = (_service_snapshot(service) for service in services)
    published = [KeyState.STAGED, KeyState.ACTIVE, KeyState.RETIRING]
    signing = list(
        SigningKey.objects.for_tenant(tenant).filter(state__in=published).order_by("-published_at")
    )
    signers = {key.kid: _signer(key) for key in signing}
    servers = ResourceServer.objects.for_tenant(tenant).filter(enabled=True)
    ring = key_ring(tenant.id)
    offered = [view for view in views if view is not None]
    for view in offered:
        view.strategy.prepare(view.settings, ring)
    return TenantSnapshot(
        id=tenant.id,
        version=tenant.version,
        services=MappingProxyType({view.name: view for view in offered}),
        keys=ring,
        rules=TokenRules(
            issuer=tenant.issuer,
            audience=tenant.audience or tenant.id,
            access_token_ttl=tenant.access_token_ttl,
            refresh_token_ttl=tenant.refresh_token_ttl,
            sign_on_ttl=tenant.sign_on_ttl,
            refresh_grace=tenant.refresh_grace,
        ),
        signer=next((signers[key.kid] for key in signing if key.state == KeyState.ACTIVE), None),
        own_keys=KeyRing(
            tenant.id,
            MappingProxyType({kid: _own(signer) for kid, signer in signers.items() if signer is not None}),
        ),
        key_set=tuple(MappingProxyType(key.public_jwk) for key in signing if key.public_jwk),
        resource_servers=MappingProxyType(
            {server.client_id: bytes(server.secret_hash) for server in servers}
        ),
    )


def key_ring(tenant_id: str) -> KeyRing:
    """Return the keys that the tenant signs with, as strategies see them."""
    keys = Key.objects.for_tenant(tenant_id)
    return KeyRing(tenant_id, MappingProxyType({key.kid: _trusted(key) for key in keys}))


def _service_snapshot(service: Service) -> ServiceSnapshot | None:
    """A service whose provider is gone, or whose settings no longer fit it, is not offered; the rest is."""
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
    return ServiceSnapshot(service.pk, service.name, service.display_name, service.logo, strategy, settings)


# Stands in for the secret of a key that is not in force, which stays sealed: nobody can sign with this.
_NOBODY_KNOWS = secrets.token_bytes(64)


def _trusted(key: Key) -> TrustedKey:
    in_force = key.state in IN_FORCE and key.algorithm in HMAC_BYTES
    secret: bytes | None = _NOBODY_KNOWS
    if in_force:
        try:
            secret = key.secret()
        except DecryptionFailed:
            secret = None
            log.error("key cannot be decrypted", extra={"tenant": key.tenant_id, "kid": key.kid})
    return TrustedKey(
        id=key.pk,
        kid=key.kid,
        algorithm=key.algorithm,
        material=secret,
        in_force=in_force,
        not_before=_seconds(key.not_before),
        not_after=_seconds(key.not_after),
    )


def _signer(key: SigningKey) -> Signer | None:
    try:
        return Signer(key.kid, key.algorithm, key.secret())
    except DecryptionFailed:
        log.error("signing key cannot be decrypted", extra={"tenant": key.tenant_id, "kid": key.kid})
        return None


def _own(signer: Signer) -> TrustedKey:
    shared = isinstance(signer.material, bytes)
    material = signer.material if shared else signer.material.public_key()
    return TrustedKey(id=None, kid=signer.kid, algorithm=signer.algorithm, material=material)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
