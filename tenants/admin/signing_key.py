"""The pages of the keys that sign a tenant's access tokens: made by rotation, looked at, revoked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from tenants import rotation
from tenants.admin.base import ConfigurationAdmin, Confirmation
from tenants.admin.key import STATES, key_values, secret_value
from tenants.models import Algorithm, KeyState, SigningKey, Tenant

NAMED = 20
"""Signing keys that the question before a step names."""


class SigningAdmin(ConfigurationAdmin):
    """Base of the pages from which the signing key of a tenant is rotated."""

    def has_rotate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rotating and revoking are the changes that there are."""
        return bool(request.user.has_perm("tenants.change_signingkey"))

    @action(
        description="Rotate signing key",
        url_path="rotate",
        permissions=["rotate"],
    )
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Do the next step of the rotation, if it is due."""
        row: Tenant | SigningKey = self.get_object_or_404(request, object_id)
        tenant_id = row.pk if isinstance(row, Tenant) else row.tenant_id
        return self.confirm(request, row, step(tenant_id), lambda: self._advance(request, tenant_id))

    def _advance(self, request: HttpRequest, tenant_id: str) -> str | HttpResponse:
        try:
            told, key = rotation.advance(tenant_id)
        except rotation.TooSoon as reason:
            raise ValidationError(f"Too soon: {reason}.") from None
        if key.state == KeyState.STAGED and key.algorithm == Algorithm.HS256:
            return self.show_signing_secret(request, key, "Signing key published: copy its secret now")
        return f"{key.kid}: {told}."

    def show_signing_secret(self, request: HttpRequest, key: SigningKey, title: str) -> HttpResponse:
        """Show what the platform verifies with, here and never again."""
        page = reverse("admin:tenants_signingkey_change", args=[key.pk])
        return self.show_once(request, title, key_values(key), secret_value(key), page)


@admin.register(SigningKey)
class SigningKeyAdmin(SigningAdmin):
    """A key that AGS signs the access tokens of a tenant with."""

    list_display = ("kid", "owner", "algorithm", "state_label", "published_at", "needed_until")
    search_fields = ("tenant__id__exact", "kid__startswith")
    search_help_text = "A tenant ID, the start of a key ID, or both."
    list_filter = ("state",)
    allowed_lookups = ("state__exact", "tenant__id__exact")
    ordering = ("tenant_id", "kid")
    fields = readonly_fields = (
        "owner",
        "kid",
        "algorithm",
        "state_label",
        "published_at",
        "needed_until",
    )
    actions_detail = ("rotate", "revoke")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Rotation makes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to fill in."""
        return False

    @display(description="State", label=STATES)
    def state_label(self, key: SigningKey) -> str:
        """The state in one word."""
        return key.state

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """A revoked key cannot be revoked."""
        key: SigningKey = self.get_object_or_404(request, object_id)
        actions: list[Any] = super().get_actions_detail(request, object_id)
        if key.state != KeyState.REVOKED:
            return actions
        return [one for one in actions if not one.action_name.endswith("_revoke")]

    @action(
        description="Revoke",
        url_path="revoke",
        permissions=["rotate"],
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Withdraw it at once."""
        key: SigningKey = self.get_object_or_404(request, object_id)
        return self.confirm(request, key, revocation(key), lambda: self._revoke(request, key))

    def _revoke(self, request: HttpRequest, key: SigningKey) -> HttpResponse | None:
        made = rotation.revoke(key)
        if made is None or made.algorithm != Algorithm.HS256:
            return None
        return self.show_signing_secret(request, made, "Another key signs now: copy its secret now")


def step(tenant_id: str) -> Confirmation:
    """Return the question before the next step of a rotation."""
    published = SigningKey.objects.for_tenant(tenant_id).exclude(state=KeyState.REVOKED)
    return Confirmation(
        title=f"Do the next step of rotating the signing key of {tenant_id}?",
        consequences=[
            "The steps are: publish a new key, let it sign, withdraw the old one. A step that comes too soon "
            "for those who verify is not done.",
            *(_told(key) for key in published.order_by("published_at")[:NAMED]),
            "Nobody is signed out.",
        ],
        button="Do the next step",
        done="The next step of the rotation is done.",
        dangerous=False,
    )


def _told(key: SigningKey) -> str:
    match key.state:
        case KeyState.STAGED:
            return f"{key.kid} ({key.algorithm}) is published and can sign from {_at(key.may_sign_at())} on."
        case KeyState.RETIRING if key.needed_until is not None:
            return (
                f"{key.kid} ({key.algorithm}) has signed tokens that are good until {_at(key.needed_until)}."
            )
        case _:
            return f"{key.kid} ({key.algorithm}) is {key.state}: it signs."


_SUCCESSION = {
    (False, False): "A new key is made, and signs from this moment on: verifiers that meet a key they do not "
    "know read the key set again.",
    (False, True): "A new key is made, and signs from this moment on. Its secret is shown once, on the next "
    "page: until the platform has it, it refuses every access token.",
    (True, False): "The key that is published already signs from this moment on.",
    (True, True): "The key that is published already signs from this moment on: until the platform has its "
    "secret, it refuses every access token.",
}
"""What follows when the key that signs is revoked: whether another is published, and whether it is shared."""


def revocation(key: SigningKey) -> Confirmation:
    """Return the question that says what stops."""
    shared = key.algorithm == Algorithm.HS256
    consequences = [
        "Access tokens that it signed fail in AGS within a second.",
        "The platform accepts them until it drops the secret, or they expire."
        if shared
        else "Elsewhere they fail once the key set is read again, which takes some minutes.",
        "Sign-ons go on: an app that refreshes gets an access token that another key has signed.",
        "This cannot be undone: a revoked key stays revoked.",
    ]
    if key.state == KeyState.ACTIVE:
        staged = rotation.next_signer(key.tenant_id)
        algorithm = key.tenant.signing_algorithm if staged is None else staged.algorithm
        consequences.insert(0, _SUCCESSION[staged is not None, algorithm == Algorithm.HS256])
    return Confirmation(
        title=f"Revoke signing key {key.kid} of {key.tenant_id}?",
        consequences=consequences,
        button="Revoke",
        done=f"Signing key {key.kid} of {key.tenant_id} is revoked.",
    )


def _at(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
