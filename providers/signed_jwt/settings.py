"""The settings of the provider `signed_jwt`."""

from typing import Any

from django import forms

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jose import EXTERNAL_KID
from providers.jwks import AlgorithmsField, PublicKeysField, UnusableKey, parse_static_keys


class SignedJWTSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    keys_from = forms.ChoiceField(
        label="Keys",
        choices=[
            ("address", "Fetched from the key set address"),
            ("entered", "Entered below"),
            ("tenant", "Public keys of the tenant"),
        ],
        initial="address",
        help_text="The source of the operator's public keys. Those of the tenant are staged, rotated "
        "and revoked on the pages of keys.",
    )
    key_set_address = HTTPSField(
        required=False,
        help_text="Required if the keys are fetched: the URL of the operator's JWK Set. It is cached and "
        "fetched again every few minutes.",
    )
    public_keys = PublicKeysField(
        required=False,
        help_text="Required if the keys are entered: a public key or certificate in PEM, a JWK or a JWK Set.",
    )
    key_id = forms.RegexField(
        rf"\A{EXTERNAL_KID.pattern}\Z",
        label="Key ID",
        required=False,
        max_length=128,
        help_text="Required for a key in PEM: the kid of the tokens. A JWK contains its kid.",
    )
    algorithms = AlgorithmsField(
        initial=["RS256", "ES256", "EdDSA"],
        help_text="A key is used only with a selected algorithm. An RSA key without alg is used only if "
        "either RS256 or PS256 is selected, but not both. A key of the tenant has its own algorithm.",
    )
    issuer = forms.CharField(max_length=255, help_text="The required value of iss.")
    audience = forms.CharField(
        max_length=255, help_text="The required value of aud, or of an element if aud is an array."
    )
    header_type = forms.RegexField(
        r"\A[A-Za-z0-9.+-]++\Z",
        max_length=64,
        initial="JWT",
        help_text="The required value of typ in the header. JWT: typ may also be absent. "
        "Authorization servers may sign access tokens as at+jwt.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        source = {"address": "key_set_address", "entered": "public_keys"}.get(cleaned.get("keys_from", ""))
        if source is None or self.errors:
            return cleaned
        if not cleaned[source]:
            self.add_error(source, "Required for the selected source of keys.")
        elif source == "public_keys":
            try:
                parse_static_keys("", cleaned[source], cleaned["key_id"], tuple(cleaned["algorithms"]))
            except UnusableKey as error:
                self.add_error(source, f"It {error}.")
        return cleaned
