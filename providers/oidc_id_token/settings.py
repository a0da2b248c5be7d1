"""The settings of the provider `oidc_id_token`."""

from django import forms
from django.core.exceptions import ValidationError

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jwks import AlgorithmsField


class OIDCIDTokenSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    issuer = HTTPSField(
        max_length=450,  # the URL of the discovery document is longer
        help_text="The required value of iss. The discovery document is at this URL plus "
        "/.well-known/openid-configuration.",
    )
    client_id = forms.CharField(
        label="Client ID",
        max_length=255,
        help_text="The client that the tokens are issued to: the required value of aud.",
    )
    trusted_clients = forms.CharField(
        required=False,
        max_length=2048,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
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

    def clean_issuer(self) -> str:
        """Require a URL without a query (OpenID Connect Core, section 2)."""
        issuer: str = self.cleaned_data["issuer"]
        if "?" in issuer:
            raise ValidationError("Enter an issuer: a URL without a query.")
        return issuer

    def clean_trusted_clients(self) -> str:
        lines = (line.strip() for line in self.cleaned_data["trusted_clients"].splitlines())
        return "\n".join(line for line in lines if line)
