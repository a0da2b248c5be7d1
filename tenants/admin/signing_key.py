"""The pages of signing keys: shown, rotated and revoked, never edited."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from tenants import rotation
from tenants.admin.key_secret import KeyListAdmin
from tenants.admin.signing_key_rotation import SigningKeyRotationAdmin, rotate_transition
from tenants.admin.transitions import Transition
from tenants.models import Algorithm, KeyState, SigningKey
from tenants.times import format_utc

_SUCCESSOR = {
    (False, False): "A new key is generated and signs from now on. Resource servers refuse its tokens until "
    "they fetch the key set again, some for half a minute.",
    (False, True): "A new key is generated and signs from now on. Its secret is shown once, on the next "
    "page: until the platform has it, the platform refuses every access token.",
    (
        True,
        False,
    ): "The staged key {kid} signs from now on. Resource servers that have fetched the key set since "
    "{published_at} accept its tokens at once.",
    (True, True): "The staged key signs from now on: until the platform has its secret, the platform refuses "
    "every access token.",
}
"""The key that signs after a revocation, by whether one is staged, and whether its secret is shared."""


def _describe_revocation(key: SigningKey) -> list[str]:
    sentences = [
        "The platform accepts them until it drops the secret, or they expire."
        if key.algorithm == Algorithm.HS256
        else "Resource servers that verify them offline refuse them once they fetch the key set again, after "
        "5 minutes if they obey its Cache-Control, and some after an hour.",
    ]
    if key.state == KeyState.ACTIVE:
        staged = rotation.get_successor(key)
        algorithm = key.tenant.signing_algorithm if staged is None else staged.algorithm
        sentence = _SUCCESSOR[staged is not None, algorithm == Algorithm.HS256]
        if staged is not None:
            sentence = sentence.format(kid=staged.kid, published_at=format_utc(staged.published_at))
        sentences.append(sentence)
    if key.state in (KeyState.ACTIVE, KeyState.STAGED) and key.tenant.needs_standby():
        sentences.append("Another key is published, which can sign when this is needed again.")
    return sentences


@admin.register(SigningKey)
class SigningKeyAdmin(KeyListAdmin, SigningKeyRotationAdmin):
    list_display = ("kid", "tenant_link", "algorithm", "state_label", "published_at", "needed_until")
    fields = ("tenant_link", "kid", "algorithm", "state_label", "published_at", "needed_until")
    readonly_fields = fields
    transitions = (
        rotate_transition("{row.tenant_id}"),
        Transition(
            name="revoke",
            label="Revoke",
            method="revoke_key",
            permission="rotate",
            sources=set(KeyState) - {KeyState.REVOKED},
            title="Revoke signing key {row.kid} of {row.tenant_id}?",
            consequences=(
                "AGS refuses access tokens that it signed within a second.",
                "Sign-ons continue: an app that refreshes gets an access token signed with another key.",
                "This cannot be undone: a revoked key stays revoked.",
            ),
            details=_describe_revocation,
            done="Signing key {row.kid} of {row.tenant_id} is revoked.",
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: a rotation adds them."""
        return False

    has_change_permission = KeyListAdmin.has_delete_permission

    def revoke_key(self, request: HttpRequest, key: SigningKey, _: Transition) -> HttpResponse | None:
        """Revoke the key. If that generated a successor with a shared secret, show the secret."""
        successor = rotation.revoke(key)
        if successor is None or successor.algorithm != Algorithm.HS256:
            return None
        return self.show_key_secret(request, successor, "Another key signs now: copy its secret now")
