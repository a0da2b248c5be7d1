"""The settings of the provider `oidc_id_token`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jwks import AlgorithmsField


class IssuerField(HTTPSField):
    """An issuer: an https URL without a query (OpenID Connect Core, section 2).

    At most 450 characters: the URL of the discovery document is longer.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 450, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the issuer."""
        issuer = super().clean(value)
        if "?" in issuer:
            raise ValidationError("Enter an issuer: a URL without a query.")
        return issuer


class ClientIDsField(forms.CharField):
    """Client IDs, one per line, at most 2,048 characters."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})
        super().__init__(**{"max_length": 2048, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the lines that are not empty."""
        lines = (line.strip() for line in (super().clean(value) or "").splitlines())
        return "\n".join(line for line in lines if line)


class OIDCIDTokenSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    """Issuer, client, and rules for ID tokens."""

    issuer = IssuerField(
        help_text="The required value of iss. The discovery document is at this URL plus "
        "/.well-known/openid-configuration."
    )
    client_id = forms.CharField(
        label="Client ID",
        max_length=255,
        help_text="The client that the tokens are issued to: the required value of aud.",
    )
    trusted_clients = ClientIDsField(
        required=False,
        help_text="Other clients that aud and azp may contain, one per line.",
    )
    algorithms = AlgorithmsField(initial=["RS256"])
    nonce = forms.ChoiceField(
        choices=[
            ("required", "A token must have a nonce, equal to the parameter Nonce"),
            ("if_given", "The nonce is compared if the parameter Nonce is sent"),
            ("off", "The nonce is not compared"),
        ],
        initial="required",
        help_text="How the nonce of the authentication request is checked.",
    )
    max_age = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=366 * 24 * 3600,
        initial=600,
        help_text="Reject tokens that were issued more than this many seconds ago. Empty: no limit.",
    )
    replay = forms.ChoiceField(
        choices=[
            ("if_present", "A token with a jti or a nonce is accepted once"),
            ("required", "Every token must have a jti or a nonce, and is accepted once"),
            ("off", "A token can be used until it expires"),
        ],
        initial="if_present",
        help_text="How often a token is accepted. Its jti, or else its nonce, identifies it.",
    )
