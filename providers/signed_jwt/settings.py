"""The settings of the provider `signed_jwt`."""

from __future__ import annotations

from typing import Any

from django import forms

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jose import EXTERNAL_KID
from providers.jwks import AlgorithmsField, PublicKeysField, Unusable, entered


class SignedJWTSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    """Keys, and rules for tokens."""

    keys_from = forms.ChoiceField(
        label="Keys",
        choices=[("address", "From the key set address"), ("entered", "As entered below")],
        initial="address",
        help_text="Where the public keys of the operator are.",
    )
    key_set_address = HTTPSField(
        required=False,
        help_text="Required if the keys are fetched: the URL of the operator's JWK Set. It is cached, and "
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
        help_text="Required for a key in PEM: its kid. A JWK contains its kid.",
    )
    algorithms = AlgorithmsField(initial=["RS256", "ES256", "EdDSA"])
    issuer = forms.CharField(max_length=255, help_text="The required value of iss.")
    audience = forms.CharField(
        max_length=255, help_text="The required value of aud, or of a member of the array."
    )
    header_type = forms.RegexField(
        r"\A[A-Za-z0-9.+-]++\Z",
        max_length=64,
        initial="JWT",
        help_text="The required value of typ in the header. JWT: typ may also be absent. "
        "Authorization servers may sign access tokens as at+jwt.",
    )

    def clean(self) -> dict[str, Any]:
        """Require the keys where `keys_from` says they are."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        source = {"address": "key_set_address", "entered": "public_keys"}.get(cleaned.get("keys_from", ""))
        if source is None or self.errors:
            return cleaned
        if not cleaned[source]:
            self.add_error(source, "Required for this choice of keys.")
        elif source == "public_keys":
            try:
                entered("", cleaned[source], cleaned["key_id"], tuple(cleaned["algorithms"]))
            except Unusable as reason:
                self.add_error(source, f"It {reason}.")
        return cleaned
