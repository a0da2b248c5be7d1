"""The button that rotates the signing key of a tenant, on the pages of the tenant and of its keys."""

from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from unfold.enums import ActionVariant

from tenants import rotation
from tenants.admin.key_secret import KeySecretAdmin
from tenants.admin.transitions import Transition, TransitionAdmin
from tenants.models import Algorithm, KeyState, SigningKey, Tenant
from tenants.times import format_utc

MAX_KEYS_LISTED = 20


class SigningKeyRotationAdmin(KeySecretAdmin, TransitionAdmin):
    def has_rotate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change signing keys: to rotate and to revoke are the only changes."""
        return bool(request.user.has_perm("tenants.change_signingkey"))

    def perform_rotation(
        self, request: HttpRequest, row: Tenant | SigningKey, _: Transition
    ) -> str | HttpResponse:
        """Execute the next step of the rotation. Raises ValidationError if it is too early."""
        try:
            outcome, key = rotation.perform_next_step(_tenant_id(row))
        except rotation.RotationTooEarly as error:
            raise ValidationError(f"Too early: {error}.") from None
        if key.state == KeyState.STAGED and key.algorithm == Algorithm.HS256:
            return self.show_key_secret(request, key, "Signing key published: copy its secret now")
        return f"{key.kid}: {outcome}."


def _tenant_id(row: Tenant | SigningKey) -> str:
    return row.pk if isinstance(row, Tenant) else row.tenant_id


def _describe_keys(row: Tenant | SigningKey) -> list[str]:
    keys = SigningKey.objects.for_tenant(_tenant_id(row)).exclude(state=KeyState.REVOKED)
    return [_describe(key) for key in keys.order_by("published_at")[:MAX_KEYS_LISTED]]


def _describe(key: SigningKey) -> str:
    name = f"{key.kid} ({key.algorithm})"
    match key.state:
        case KeyState.STAGED:
            return f"{name} is published and can sign from {format_utc(key.may_sign_at())}."
        case KeyState.RETIRING if key.needed_until is not None:
            return f"{name} has signed tokens that are valid until {format_utc(key.needed_until)}."
        case _:
            return f"{name} is {key.state}: it signs."


def rotate_transition(tenant_id: str) -> Transition:
    """Return the transition; `tenant_id` is the template of the tenant's ID."""
    return Transition(
        name="rotate",
        label="Rotate signing key",
        method="perform_rotation",
        permission="rotate",
        variant=ActionVariant.DEFAULT,
        title=f"Execute the next step of rotating the signing key of {tenant_id}?",
        consequences=(
            "The steps are: publish a new key, sign with it, withdraw the old key. With ES256, the next key "
            "is already published. A step is refused if it is too early for those who verify tokens.",
            "No device is signed out.",
        ),
        details=_describe_keys,
        done="The next step of the rotation is done.",
    )
