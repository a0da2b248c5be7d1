"""What staff configure for a service that is handed JWTs of the operator."""

from __future__ import annotations

from typing import Any

from django import forms
from providers.key_set import AlgorithmsField, PublicKeysField, Unusable, entered

from providers.claims import ClaimSettings, TokenSettings
from providers.contract import HTTPSField, UpstreamSettings
from providers.jose import FOREIGN_KID


class PartnerJWTSettings(UpstreamSettings, ClaimSettings, TokenSettings):
    """Where the keys are, and what a token must say."""

    keys_from = forms.ChoiceField(
        label="Keys",
        choices=[("address", "From the key set address"), ("entered", "As entered below")],
        initial="address",
        help_text="Where the public keys of the operator are.",
    )
    key_set_address = HTTPSField(
        required=False,
        help_text="Needed where the keys are there: the operator's JWK Set. It is kept, and asked for again "
        "every few minutes.",
    )
    public_keys = PublicKeysField(
        required=False,
        help_text="Needed where the keys are entered: a public key or a certificate in PEM, a JWK or a "
        "JWK Set.",
    )
    key_id = forms.RegexField(
        rf"\A{FOREIGN_KID.pattern}\Z",
        label="Key ID",
        required=False,
        max_length=128,
        help_text="The kid of a key that is entered in PEM, where it is needed. A JWK has its own.",
    )
    algorithms = AlgorithmsField(initial=["RS256", "ES256", "EdDSA"])
    issuer = forms.CharField(max_length=255, help_text="What iss must be, to the character.")
    audience = forms.CharField(
        max_length=255, help_text="What aud must be, or have among others where it is an array."
    )
    header_type = forms.RegexField(
        r"\A[A-Za-z0-9.+-]++\Z",
        max_length=64,
        initial="JWT",
        help_text="What typ of the header must be. JWT: it may also be absent. "
        "An authorization server may sign access tokens as at+jwt, to tell them from others.",
    )

    def clean(self) -> dict[str, Any]:
        """Demand keys where they are said to be."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        source = {"address": "key_set_address", "entered": "public_keys"}.get(cleaned.get("keys_from", ""))
        if source is None or self.errors:
            return cleaned
        if not cleaned[source]:
            self.add_error(source, "Needed, for this is where the keys are said to be.")
        elif source == "public_keys":
            try:
                entered("", cleaned[source], cleaned["key_id"], tuple(cleaned["algorithms"]))
            except Unusable as reason:
                self.add_error(source, f"It {reason}.")
        return cleaned
