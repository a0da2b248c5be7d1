"""What staff configure for a service that is handed ID tokens."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jwks import AlgorithmsField


class IssuerField(HTTPSField):
    """An issuer: an https address of at most 450 characters, without a query (OpenID Connect Core 2).

    That leaves room for the rest of the address of its discovery document.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 450, **kwargs})

    def clean(self, value: Any) -> str:
        """Return it."""
        issuer = super().clean(value)
        if "?" in issuer:
            raise ValidationError("An issuer has no query.")
        return issuer


class ClientIDsField(forms.CharField):
    """Client IDs, one in each line, of at most 2,048 characters together."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})
        super().__init__(**{"max_length": 2048, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the lines that are not empty."""
        lines = (line.strip() for line in (super().clean(value) or "").splitlines())
        return "\n".join(line for line in lines if line)


class OIDCIDTokenSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    """Whose ID tokens, for whom, and what they must say."""

    issuer = IssuerField(
        help_text="What iss must be, to the character. The discovery document is at this address and "
        "/.well-known/openid-configuration."
    )
    client_id = forms.CharField(
        label="Client ID", max_length=255, help_text="The client for which the tokens are made: their aud."
    )
    trusted_clients = ClientIDsField(
        required=False,
        help_text="Other clients, one in each line, that may stand in aud beside ours, and in azp.",
    )
    algorithms = AlgorithmsField(initial=["RS256"])
    nonce = forms.ChoiceField(
        choices=[
            ("required", "A token must have a nonce, equal to the parameter Nonce"),
            ("if_given", "The nonce is compared where the parameter Nonce is given"),
            ("off", "The nonce is not compared"),
        ],
        initial="required",
        help_text="Whether whoever presents a token must know the nonce that it was asked for with.",
    )
    max_age = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=366 * 24 * 3600,
        initial=600,
        help_text="Refuse a token that was issued more than this many seconds ago. Empty: no limit.",
    )
    replay = forms.ChoiceField(
        choices=[
            ("if_present", "A token with a jti or a nonce is accepted once"),
            ("required", "Every token must have a jti or a nonce, and is accepted once"),
            ("off", "A token can be used until it expires"),
        ],
        initial="if_present",
        help_text="Whether a token can be used again until it expires. Known by its jti, or else its nonce.",
    )
