"""The settings of the provider `operator_login`."""

import re
from typing import Any

from django import forms

from providers.contract import HTTPSField, PasswordSettings, SecretField, UpstreamSettings
from providers.operator_login.password_decryption import private_key

# The characters that Basic allows (RFC 7617, section 2).
_USER, _SECRET = re.compile("[^\x00-\x1f\x7f:]++"), re.compile("[^\x00-\x1f\x7f]++")
_BEARER = re.compile("[!-~]++")
"""Visible ASCII. RFC 6750, section 2.1, allows fewer characters, but operators use others too."""


class OperatorLoginSettings(PasswordSettings, UpstreamSettings):
    address = HTTPSField(label="Login endpoint", help_text="The operator's endpoint that verifies passwords.")
    authentication = forms.ChoiceField(
        choices=[
            ("basic", "User and secret (Basic)"),
            ("bearer", "A secret (Bearer)"),
            ("none", "None: the endpoint identifies AGS by the network"),
        ],
        initial="basic",
        help_text="How AGS authenticates to the endpoint.",
    )
    user = forms.CharField(required=False, max_length=255, initial="", help_text="Required for Basic.")
    secret = SecretField(
        destination_settings=("address", "ca_certificates", "user"),
        required=False,
        help_text="Required for Basic and Bearer.",
    )
    encryption = forms.ChoiceField(
        choices=[
            ("none", "Passwords are not encrypted"),
            ("pass_on", "Passwords are encrypted, and the endpoint decrypts them"),
            ("decrypt", "Passwords are encrypted, and AGS decrypts them"),
        ],
        initial="none",
        help_text="How client apps send passwords: encrypted passwords use a public RSA key of the operator.",
    )
    padding = forms.ChoiceField(
        choices=[
            ("oaep_sha256", "OAEP, SHA-256"),
            ("oaep_sha256_mgf1_sha1", "OAEP, SHA-256, MGF1 with SHA-1 (the default of Java)"),
            ("oaep_sha1", "OAEP, SHA-1"),
            ("pkcs1v15", "PKCS#1 v1.5 (only for clients without OAEP)"),
        ],
        initial="oaep_sha256",
        help_text="The padding that client apps use. Used only if AGS decrypts.",
    )
    private_key = SecretField(
        # The key is not sent there, but the passwords that it decrypts are.
        destination_settings=("address", "ca_certificates"),
        required=False,
        multiline=True,
        max_length=8192,
        help_text="Required if AGS decrypts: the private RSA key (PEM, 2048 to 4096 bits).",
    )

    def clean_private_key(self) -> str:
        text: str = self.cleaned_data["private_key"]
        if text:
            try:
                private_key(text)
            except ValueError as error:
                raise forms.ValidationError(f"This is {error}.") from None
        return text

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        user, secret = cleaned.get("user", ""), cleaned.get("secret", "")
        match cleaned.get("authentication"):
            case "basic":
                if not _USER.fullmatch(user):
                    self.add_error("user", "Required for Basic, without colons and control characters.")
                if not _SECRET.fullmatch(secret):
                    self.add_error("secret", "Required for Basic, without control characters.")
            case "bearer" if not _BEARER.fullmatch(secret):
                self.add_error("secret", "Required for Bearer: visible ASCII characters without spaces.")
        if cleaned.get("encryption") == "decrypt" and not cleaned.get("private_key", "x"):
            self.add_error("private_key", "Required if AGS decrypts.")
        return cleaned
