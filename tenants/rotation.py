"""Rotation of the signing key of a tenant, one step at a time.

Verifiers cache the JWKS. So a new key is published before it signs, and an old key stays published until the
last token that it signed has expired. A tenant with ES256 always has a published *standby key*, which signs
at once if the active key is revoked: verifiers have it, and need not fetch the JWKS.
"""

from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from tenants.models import Algorithm, KeyState, SigningKey, Tenant
from tenants.models.signing_key import IS_STANDBY, RETIREMENT_MARGIN
from tenants.secrets.encryption import DecryptionFailed
from tenants.times import format_utc, get_database_time


class RotationTooEarly(Exception):
    """The next step is not due. The message gives the reason and the time from which it is due."""


@transaction.atomic
def perform_next_step(tenant_id: str, *, secret: bytes | None = None) -> tuple[str, SigningKey]:
    """Perform the next step that is due: activate the published key, revoke the old one, or publish one.

    Returns a message for staff, and the key that the step concerns.
    `secret`: the secret of a new HS256 key; without it, one is generated. Raises `RotationTooEarly`,
    ValidationError and `Tenant.DoesNotExist`.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
    if not tenant.enabled:
        raise ValidationError("The tenant is disabled, so verifiers cannot fetch its JWKS.")
    now = get_database_time()
    staged = _get_staged_key(tenant, tenant.signing_algorithm)
    retiring = SigningKey.objects.for_tenant(tenant).filter(state=KeyState.RETIRING)
    old = retiring.order_by("needed_until").first()
    needed_until = None if old is None else old.needed_until
    if secret is not None and (staged is not None or tenant.signing_algorithm != Algorithm.HS256):
        raise ValidationError("A secret can only be given for a new key of a tenant that uses HS256.")
    if old is not None and needed_until is not None and needed_until <= now:
        _set_state(old, KeyState.REVOKED)
        SigningKey.publish_standby(tenant)
        return "revoked; every token that it signed has expired", old
    if staged is None and tenant.needs_standby():
        return _publish(tenant)
    # Before the staged key: otherwise a job that runs every hour would retire another key with each run.
    # Not if the algorithm changes: that happens once, and should not wait for the tokens of an old key.
    if old is not None and needed_until is not None and not _changes_algorithm(tenant, staged):
        raise RotationTooEarly(f"tokens signed by {old.kid} are valid until {format_utc(needed_until)}")
    if staged is None:
        return _publish(tenant, secret)
    if staged.may_sign_at() > now:
        raise RotationTooEarly(
            f"verifiers may not have fetched {staged.kid} before {format_utc(staged.may_sign_at())}"
        )
    _activate(tenant, staged, now)
    SigningKey.publish_standby(tenant)
    return "signs from now on", staged


@transaction.atomic
def revoke(key: SigningKey) -> SigningKey | None:
    """Revoke a key immediately. Verifiers reject its tokens as soon as they fetch the JWKS again.

    If it is the active key, its successor becomes active immediately; without one, a new key does: verifiers
    fetch the JWKS again when they see an unknown key ID. A standby key is published if there is none left.
    Returns the new active key if one was created, because an HS256 secret must be given to the platform.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=key.tenant_id)
    key.refresh_from_db()
    was_active = key.state == KeyState.ACTIVE
    successor = get_successor(key) if was_active else None
    key.save_restriction(state=KeyState.REVOKED)
    created = None
    if was_active and successor is None:
        successor = created = SigningKey.generate(tenant)
    if successor is not None:
        successor.state = KeyState.ACTIVE
        successor.save()
    SigningKey.publish_standby(tenant)
    return created


def get_successor(key: SigningKey) -> SigningKey | None:
    """Return the staged key that signs if this one is revoked.

    Preferably one of the same algorithm, which verifiers accept also if the algorithm of the tenant is about
    to change.
    """
    return _get_staged_key(key.tenant_id, key.algorithm) or _get_staged_key(
        key.tenant_id, key.tenant.signing_algorithm
    )


def tenants_without_standby() -> QuerySet[Tenant]:
    """Return the tenants for which `SigningKey.publish_standby` publishes a key."""
    standby = SigningKey.unscoped.filter(IS_STANDBY, tenant=OuterRef("pk"))
    return Tenant.objects.filter(~Exists(standby), enabled=True, signing_algorithm=Algorithm.ES256)


def publish_missing_standby_keys() -> None:
    """Publish a key for each tenant without one: those that an earlier release has stored."""
    for tenant_id in tenants_without_standby().order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
            if _can_decrypt_keys(tenant):
                SigningKey.publish_standby(tenant)


def _can_decrypt_keys(tenant: Tenant) -> bool:
    """Return False if this process has other encryption keys than the servers: they could not use its key."""
    try:
        for key in SigningKey.objects.for_tenant(tenant).filter(state=KeyState.ACTIVE):
            key.secret()
    except DecryptionFailed:
        return False
    return True


def _publish(tenant: Tenant, secret: bytes | None = None) -> tuple[str, SigningKey]:
    key = SigningKey.generate(tenant, secret=secret)
    key.save()
    return f"published; it can sign from {format_utc(key.may_sign_at())} on", key


def _get_staged_key(tenant: Tenant | str, algorithm: str) -> SigningKey | None:
    keys = SigningKey.objects.for_tenant(tenant)
    return keys.filter(state=KeyState.STAGED, algorithm=algorithm).order_by("published_at").first()


def _changes_algorithm(tenant: Tenant, staged: SigningKey | None) -> bool:
    active = SigningKey.objects.for_tenant(tenant).filter(state=KeyState.ACTIVE).first()
    return staged is not None and active is not None and staged.algorithm != active.algorithm


def _activate(tenant: Tenant, staged: SigningKey, now: datetime) -> None:
    keys = SigningKey.objects.for_tenant(tenant)
    for key in keys.filter(state=KeyState.ACTIVE):
        # The longest lifetime that the tenant has ever set: it may have been shortened since.
        longest = tenant.history.aggregate(Max("access_token_ttl"))["access_token_ttl__max"]
        lifetime = timedelta(seconds=max(longest or 0, tenant.access_token_ttl))
        key.needed_until = now + lifetime + RETIREMENT_MARGIN
        _set_state(key, KeyState.RETIRING)
    _set_state(staged, KeyState.ACTIVE)
    # After a change of the algorithm, verifiers no longer expect the old one.
    for key in keys.filter(state=KeyState.STAGED).exclude(algorithm=staged.algorithm):
        _set_state(key, KeyState.REVOKED)


def _set_state(key: SigningKey, state: str) -> None:
    key.state = state
    key.save(update_fields=["state", "needed_until"])
