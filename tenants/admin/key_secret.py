"""What the pages of keys and of signing keys share: the list, and showing a generated secret."""

import base64
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import display

from tenants.admin.base import ConfigurationAdmin, LabelledValue
from tenants.models import Key, SigningKey

STATE_COLORS = {"staged": "info", "active": "success", "retiring": "warning", "revoked": "danger"}


class KeySecretAdmin(ConfigurationAdmin):
    def show_key_secret(self, request: HttpRequest, key: Key | SigningKey, title: str) -> HttpResponse:
        """Show the secret of a key that was generated just now. It is in this response only."""
        values = [
            LabelledValue("Tenant", key.tenant_id),
            LabelledValue("Key ID (kid)", key.kid, "kid"),
            LabelledValue("Algorithm", key.algorithm),
            LabelledValue("State", key.get_state_display()),
        ]
        secret = base64.b64encode(key.secret()).decode("ascii")
        model: Any = type(key)._meta
        next_url = reverse(f"admin:tenants_{model.model_name}_change", args=[key.pk])
        return self.show_once(
            request, title, values, LabelledValue("Secret, in base64", secret, "secret"), next_url
        )


class KeyListAdmin(KeySecretAdmin):
    search_fields = ("tenant__id__exact", "kid__startswith")
    search_help_text = "A tenant ID, the start of a key ID, or both."
    list_filter = ("state",)
    allowed_lookups = ("state__exact", "tenant__id__exact")
    ordering = ("tenant_id", "kid")
    state_field = "state"

    @display(description="State", label=STATE_COLORS)
    def state_label(self, key: Key | SigningKey) -> str:
        return key.state
