"""Moves public keys from the settings of a service to the keys of its tenant."""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.exceptions import ValidationError
from django.db import transaction

from providers.contract import TrustedKey
from providers.jose import KID
from providers.jwks import UnusableKey, parse_static_keys
from tenants.models import IN_FORCE, Key, KeyState, Service, Tenant

STRATEGY = "signed_jwt"


class MoveRefused(ValueError):
    """Nothing was changed. The message is a sentence for staff."""


@dataclass(frozen=True, slots=True)
class Move:
    """`added` and `existing`: the keys that the service had. `unused`: the number of its unusable keys."""

    service: Service
    added: Sequence[Key]
    existing: Sequence[Key]
    unused: int


@transaction.atomic
def move_public_keys(tenant_id: str, service_name: str) -> Move | None:
    """Make the keys active keys of the tenant, with which the service verifies from then on.

    Returns None if the service verifies with the keys of the tenant already. Raises `MoveRefused`.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).filter(pk=tenant_id).first()
    if tenant is None:
        raise MoveRefused(f"Tenant {tenant_id} does not exist.")
    service = Service.objects.for_tenant(tenant).filter(name=service_name).first()
    if service is None:
        raise MoveRefused(f"Tenant {tenant_id} has no service {service_name!r}.")
    if service.strategy != STRATEGY:
        raise MoveRefused(
            f"The service uses {service.strategy}: only the keys of a service of {STRATEGY} can be moved."
        )
    source = service.settings.get("keys_from")
    if source == "tenant":
        return None
    if source != "entered":
        raise MoveRefused("The service fetches its keys from an address: it has no keys to move.")
    settings = service.settings
    try:
        algorithms = tuple(settings["algorithms"])
        entered = parse_static_keys(tenant_id, settings["public_keys"], settings["key_id"], algorithms)
    except UnusableKey as error:
        raise MoveRefused(f"The setting public_keys cannot be used: it {error}.") from None
    keys = list(entered.key_ring.keys.values())
    _check_kids(keys)
    existing = [key for own in keys if (key := _find_existing(tenant, own)) is not None]
    known = {key.kid for key in existing}
    try:
        added = [_add(tenant, own) for own in keys if own.kid not in known]
        service.settings = {**settings, "keys_from": "tenant"}
        service.save()
    except ValidationError as problem:
        raise MoveRefused(" ".join(problem.messages)) from None
    return Move(service, added, existing, entered.unused.total())


def _check_kids(keys: Sequence[TrustedKey]) -> None:
    if invalid := [own.kid for own in keys if not KID.fullmatch(own.kid)]:
        raise MoveRefused(
            f"The key ID {invalid[0]!r} cannot be that of a key of a tenant, which has 1 to 128 letters, "
            "digits, '.', '_', ':' or '-'."
        )


def _find_existing(tenant: Tenant, own: TrustedKey) -> Key | None:
    """Return the same key of the tenant, such as that of another service. Raises `MoveRefused`."""
    key = Key.objects.for_tenant(tenant).filter(kid=own.kid).first()
    if key is None:
        return None
    if (key.algorithm, key.public_key) != (own.algorithm, _pem(own)):
        raise MoveRefused(f"Tenant {tenant.pk} has another key with the key ID {own.kid}.")
    if key.state not in IN_FORCE or key.not_before or key.not_after:
        raise MoveRefused(
            f"Tenant {tenant.pk} has the key {own.kid}, but not without limits: it is {key.state}, or has a "
            "Not before or Not after."
        )
    return key


def _add(tenant: Tenant, own: TrustedKey) -> Key:
    key = Key(tenant=tenant, kid=own.kid, algorithm=own.algorithm, state=KeyState.ACTIVE)
    key.set_public_key(_pem(own))
    key.save()
    return key


def _pem(own: TrustedKey) -> str:
    pem: bytes = own.material.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()
