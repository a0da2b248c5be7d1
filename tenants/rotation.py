"""Rotation of the signing key of a tenant, one step at a time.

Verifiers cache the JWKS. So a new key is published before it signs, and an old key stays published until the
last token that it signed has expired.
"""

from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max

from tenants.models import KeyState, SigningKey, Tenant
from tenants.models.signing_key import RETIREMENT_MARGIN
from tenants.times import format_utc, get_database_time


class RotationTooEarly(Exception):
    """The next step is not due. The message gives the reason and the time from which it is due."""


@transaction.atomic
def perform_next_step(tenant_id: str, *, secret: bytes | None = None) -> tuple[str, SigningKey]:
    """Perform the next step that is due: publish a new key, activate it, or revoke the old one.

    Returns a message for staff, and the key that the step concerns.
    `secret`: the secret of a new HS256 key; without it, one is generated. Raises `RotationTooEarly`,
    ValidationError and `Tenant.DoesNotExist`.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
    if not tenant.enabled:
        raise ValidationError("The tenant is disabled, so verifiers cannot fetch its JWKS.")
    now = get_database_time()
    keys = SigningKey.objects.for_tenant(tenant)
    staged = get_staged_key(tenant)
    retiring = keys.filter(state=KeyState.RETIRING).order_by("needed_until").first()
    if secret is not None and (staged is not None or tenant.signing_algorithm != "HS256"):
        raise ValidationError("A secret can only be given for a new key of a tenant that uses HS256.")
    if retiring is not None and retiring.needed_until is not None and retiring.needed_until <= now:
        _set_state(retiring, KeyState.REVOKED)
        return "revoked; every token that it signed has expired", retiring
    if staged is not None:
        if staged.may_sign_at() > now:
            raise RotationTooEarly(
                f"verifiers may not have fetched {staged.kid} before {format_utc(staged.may_sign_at())}"
            )
        _activate(tenant, staged, now)
        return "signs from now on", staged
    if retiring is not None and retiring.needed_until is not None:
        raise RotationTooEarly(
            f"tokens signed by {retiring.kid} are valid until {format_utc(retiring.needed_until)}"
        )
    new = SigningKey.generate(tenant, secret=secret)
    new.save()
    return f"published; it can sign from {format_utc(new.may_sign_at())} on", new


@transaction.atomic
def revoke(key: SigningKey) -> SigningKey | None:
    """Revoke a key immediately. Verifiers reject its tokens as soon as they fetch the JWKS again.

    If it is the active key, the staged key or else a new one becomes active immediately: verifiers fetch the
    JWKS again when they see an unknown key ID. Returns the new key if one was created, because an HS256
    secret must be given to the platform.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=key.tenant_id)
    key.refresh_from_db()
    was_active = key.state == KeyState.ACTIVE
    key.save_restriction(state=KeyState.REVOKED)
    if not was_active:
        return None
    staged = get_staged_key(tenant)
    successor = staged or SigningKey.generate(tenant)
    successor.state = KeyState.ACTIVE
    successor.save()
    return None if staged else successor


def get_staged_key(tenant: Tenant | str) -> SigningKey | None:
    """Return the key that signs next: published, and not active yet."""
    keys = SigningKey.objects.for_tenant(tenant)
    return keys.filter(state=KeyState.STAGED).order_by("published_at").first()


def _activate(tenant: Tenant, staged: SigningKey, now: datetime) -> None:
    for key in SigningKey.objects.for_tenant(tenant).filter(state=KeyState.ACTIVE):
        # The longest lifetime that the tenant has ever set: it may have been shortened since.
        longest = tenant.history.aggregate(Max("access_token_ttl"))["access_token_ttl__max"]
        lifetime = timedelta(seconds=max(longest or 0, tenant.access_token_ttl))
        key.needed_until = now + lifetime + RETIREMENT_MARGIN
        _set_state(key, KeyState.RETIRING)
    _set_state(staged, KeyState.ACTIVE)


def _set_state(key: SigningKey, state: str) -> None:
    key.state = state
    key.save(update_fields=["state", "needed_until"])
