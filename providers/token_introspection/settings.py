"""The settings of the provider `token_introspection`."""

import re
from functools import partial
from typing import Any

from django import forms

from providers.contract import HTTPSField, SecretField, SessionTokenSettings, UpstreamSettings

_optional_text = partial(forms.CharField, required=False, max_length=500, initial="")


class TokenIntrospectionSettings(UpstreamSettings, SessionTokenSettings):
    address = HTTPSField(
        label="Introspection endpoint",
        help_text="The introspection_endpoint of the identity provider (RFC 7662).",
    )
    client_id = forms.CharField(
        label="Client ID", max_length=255, help_text="The client ID of AGS at the identity provider."
    )
    client_secret = SecretField(
        destination_settings=("address", "ca_certificates", "client_id"),
        help_text="The client secret of AGS.",
    )
    client_authentication = forms.ChoiceField(
        choices=[
            ("client_secret_basic", "In the Authorization header (client_secret_basic)"),
            ("client_secret_post", "In the form (client_secret_post)"),
        ],
        initial="client_secret_basic",
        help_text="How AGS sends client ID and secret (RFC 6749, section 2.3.1).",
    )
    token_type_hint = forms.ChoiceField(
        required=False,
        choices=[("access_token", "access_token"), ("", "None")],
        initial="access_token",
        help_text="The token_type_hint of the request.",
    )
    token_type = forms.ChoiceField(
        choices=[
            ("required", "The response must contain token_type Bearer"),
            ("if_present", "The response may omit token_type"),
        ],
        initial="required",
        help_text="Some identity providers also accept refresh tokens, and omit token_type for them.",
    )
    issuer = _optional_text(help_text="The required value of iss. Empty: not checked.")
    audience = _optional_text(
        help_text="The required value of aud, or of an element if aud is an array. Empty: not checked."
    )
    scope = _optional_text(help_text="Required scopes, separated by spaces. Empty: none.")
    account_member = forms.CharField(
        max_length=100, initial="sub", help_text="The member of the response that contains the account ID."
    )
    tenant_member = _optional_text(
        max_length=100,
        help_text="The member of the response that must be equal to the tenant ID. Empty: not checked.",
    )
    clock_skew = forms.IntegerField(
        min_value=0,
        max_value=300,
        initial=30,
        help_text="Seconds by which the identity provider's clock may differ from that of AGS. 0 to 300.",
    )

    def clean(self) -> dict[str, Any]:
        """Client ID and secret are VSCHAR (RFC 6749, appendices A.1 and A.2)."""
        cleaned: dict[str, Any] = super().clean() or {}
        for name in ("client_id", "client_secret"):
            if not re.fullmatch("[ -~]*+", cleaned.get(name, "")):
                self.add_error(name, "Enter visible ASCII characters and spaces only.")
        return cleaned
