"""Rotating the key that signs a tenant's access tokens, one step at a time and never too fast.

A verifier keeps the key set for a while. So a new key is published before it signs, and an old one stays
published until the last token that it signed has expired.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from tenants.models import KeyState, SigningKey, Tenant
from tenants.models.signing_key import MARGIN


class TooSoon(Exception):
    """The next step has to wait; the message says until when, and why."""


@transaction.atomic
def advance(tenant_id: str, *, secret: bytes | None = None) -> tuple[str, SigningKey]:
    """Do the next step that is due; return a sentence about it, and the key it is about.

    `secret` is for a tenant whose tokens are signed with HS256; without it one is generated. Raises
    `TooSoon`, ValidationError, and `Tenant.DoesNotExist`.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
    if not tenant.enabled:
        raise ValidationError("The tenant is disabled: nobody could read the key set meanwhile.")
    now = timezone.now()
    keys = SigningKey.objects.for_tenant(tenant)
    staged = next_signer(tenant)
    retiring = keys.filter(state=KeyState.RETIRING).order_by("needed_until").first()
    if secret is not None and (staged is not None or tenant.signing_algorithm != "HS256"):
        raise ValidationError("A secret can only be given for a new key of a tenant that uses HS256.")
    if retiring is not None and retiring.needed_until is not None and retiring.needed_until <= now:
        _set(retiring, KeyState.REVOKED)
        return "withdrawn: no token that it signed is good any more", retiring
    if staged is not None:
        if staged.may_sign_at() > now:
            raise TooSoon(f"not every verifier knows {staged.kid} before {_at(staged.may_sign_at())}")
        _activate(tenant, staged, now)
        return "signs from now on", staged
    if retiring is not None and retiring.needed_until is not None:
        raise TooSoon(f"tokens signed by {retiring.kid} are good until {_at(retiring.needed_until)}")
    new = SigningKey.generate(tenant, secret=secret)
    new.save()
    return f"published; it can sign from {_at(new.may_sign_at())} on", new


@transaction.atomic
def revoke(key: SigningKey) -> SigningKey | None:
    """Withdraw a key at once: tokens that it signed fail wherever the key set is read anew.

    Where it was the one that signs, another takes its place at once: verifiers that meet a key they do not
    know read the key set again. Return that one where it had to be made: whoever shares its secret has to be
    told.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=key.tenant_id)
    key.refresh_from_db()
    signed = key.state == KeyState.ACTIVE
    key.save_restriction(state=KeyState.REVOKED)
    if not signed:
        return None
    staged = next_signer(tenant)
    successor = staged or SigningKey.generate(tenant)
    successor.state = KeyState.ACTIVE
    successor.save()
    return None if staged else successor


def next_signer(tenant: Tenant | str) -> SigningKey | None:
    """Return the key that is published and does not sign yet."""
    keys = SigningKey.objects.for_tenant(tenant)
    return keys.filter(state=KeyState.STAGED).order_by("published_at").first()


def _activate(tenant: Tenant, staged: SigningKey, now: datetime) -> None:
    for key in SigningKey.objects.for_tenant(tenant).filter(state=KeyState.ACTIVE):
        # The longest that any token of this tenant was good for, should that have been shortened since.
        longest = tenant.history.aggregate(Max("access_token_ttl"))["access_token_ttl__max"]
        key.needed_until = now + timedelta(seconds=max(longest or 0, tenant.access_token_ttl)) + MARGIN
        _set(key, KeyState.RETIRING)
    _set(staged, KeyState.ACTIVE)


def _set(key: SigningKey, state: str) -> None:
    key.state = state
    key.save(update_fields=["state", "needed_until"])


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
