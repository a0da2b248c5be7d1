"""What staff configure of token introspection."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from providers.contract import HTTPSField, SecretField, SessionTokenSettings, UpstreamSettings


class TokenIntrospectionSettings(UpstreamSettings, SessionTokenSettings):
    """Where to ask, as whom, and what the answer must say."""

    address = HTTPSField(
        label="Introspection endpoint",
        help_text="The introspection_endpoint of the identity provider (RFC 7662).",
    )
    client_id = forms.CharField(
        label="Client ID", max_length=255, help_text="The client that AGS is to the identity provider."
    )
    client_secret = SecretField(
        destination_settings=("address", "ca_certificates", "client_id"), help_text="Its secret."
    )
    client_authentication = forms.ChoiceField(
        choices=[
            ("client_secret_basic", "In the Authorization header (client_secret_basic)"),
            ("client_secret_post", "In the form (client_secret_post)"),
        ],
        initial="client_secret_basic",
        help_text="How the identity provider expects the two (RFC 6749, section 2.3.1).",
    )
    token_type_hint = forms.ChoiceField(
        required=False,
        choices=[("access_token", "An access token"), ("", "Nothing")],
        initial="access_token",
        help_text="What the identity provider is told that it is asked about.",
    )
    token_type = forms.ChoiceField(
        choices=[
            ("required", "It must say token_type Bearer"),
            ("if_present", "It may leave token_type out"),
        ],
        initial="required",
        help_text="Some identity providers answer about refresh tokens, too, and leave it out for them.",
    )
    issuer = forms.CharField(
        required=False,
        max_length=500,
        initial="",
        help_text="What iss must be. Empty: it is not looked at.",
    )
    audience = forms.CharField(
        required=False,
        max_length=500,
        initial="",
        help_text="What aud must be, or hold. Empty: it is not looked at.",
    )
    scope = forms.CharField(
        required=False,
        max_length=500,
        initial="",
        help_text="The scopes that a token must have, all of them, separated by spaces. Empty: none.",
    )
    account_member = forms.CharField(
        max_length=100, initial="sub", help_text="The member of the answer that names the account."
    )
    tenant_member = forms.CharField(
        required=False,
        max_length=100,
        initial="",
        help_text="The member of the answer that must be the tenant ID. Empty: none.",
    )
    clock_skew = forms.IntegerField(
        min_value=0,
        max_value=300,
        initial=30,
        help_text="Seconds by which the identity provider's clock may differ from ours. 0 to 300.",
    )

    def clean(self) -> dict[str, Any]:
        """Both of VSCHAR alone (RFC 6749, appendices A.1 and A.2)."""
        cleaned: dict[str, Any] = super().clean() or {}
        for name in ("client_id", "client_secret"):
            if not re.fullmatch("[ -~]*+", cleaned.get(name, "")):
                self.add_error(name, "Letters, digits and signs of ASCII only.")
        return cleaned
