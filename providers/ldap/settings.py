"""The settings of the provider `ldap`."""

import re
from typing import Any

import ldap.dn
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

from providers.contract import HostField, PasswordSettings, SecretField, UpstreamSettings
from providers.ldap.directory import STARTTLS, is_valid_filter

USERNAME = "{username}"

_ATTRIBUTE = RegexValidator(r"\A[A-Za-z][A-Za-z0-9-]*+\Z", "Enter the name of an attribute, such as uid.")

_WORD = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff@\\]++"
_AD_NAME = re.compile(rf"{_WORD}[@\\]{_WORD}")  # user@domain, DOMAIN\user


class LDAPSettings(PasswordSettings, UpstreamSettings):
    host = HostField(help_text="The name of the server, as in its certificate.")
    port = forms.IntegerField(
        min_value=1, max_value=65535, initial=636, help_text="Usually 636 for LDAPS, 389 for StartTLS."
    )
    transport = forms.ChoiceField(
        choices=[("ldaps", "LDAPS"), (STARTTLS, "StartTLS")],
        initial="ldaps",
        help_text="How TLS starts. AGS sends no secret without TLS.",
    )
    bind_dn = forms.CharField(
        required=False,
        max_length=500,
        label="Service account",
        help_text=r"The DN that AGS searches as; for Active Directory, also user@domain or DOMAIN\user. "
        "Empty: it searches anonymously.",
    )
    bind_password = SecretField(
        destination_settings=("host", "port", "transport", "ca_certificates", "bind_dn"),
        required=False,
        label="Password of the service account",
        help_text="The password of the service account.",
    )
    search_base = forms.CharField(max_length=500, help_text="The base DN of the entries of subscribers.")
    user_filter = forms.CharField(
        max_length=500,
        initial=f"(uid={USERNAME})",
        help_text=f"The search filter (RFC 4515). {USERNAME} is replaced by the username.",
    )
    account_attribute = forms.CharField(
        max_length=64,
        initial="uid",
        validators=[_ATTRIBUTE],
        help_text="The attribute that contains the account ID. Subscribers choose if it has several values.",
    )
    status_attribute = forms.CharField(
        required=False,
        max_length=64,
        validators=[_ATTRIBUTE],
        help_text="The attribute that marks suspended accounts. Empty: none.",
    )
    suspended_value = forms.CharField(
        required=False, max_length=255, help_text="The value for suspended accounts, case-insensitive."
    )

    def clean_bind_dn(self) -> str:
        text: str = self.cleaned_data["bind_dn"]
        if text and not (_AD_NAME.fullmatch(text) or ldap.dn.is_dn(text)):
            raise ValidationError(
                r"Enter a distinguished name such as cn=ags,dc=operator,dc=example, or for Active Directory "
                r"user@domain or DOMAIN\user."
            )
        return text

    def clean_search_base(self) -> str:
        text: str = self.cleaned_data["search_base"]
        if not ldap.dn.is_dn(text):
            raise ValidationError("Enter a distinguished name such as ou=people,dc=operator,dc=example.")
        return text

    def clean_user_filter(self) -> str:
        text: str = self.cleaned_data["user_filter"]
        if USERNAME not in text:
            raise ValidationError(f"The filter must contain {USERNAME}.")
        # Escaped characters are valid in values only, so this rejects {username} as the name of an attribute.
        if not is_valid_filter(text.replace(USERNAME, r"\2a")):
            raise ValidationError(f"Enter a filter such as (uid={USERNAME}).")
        return text

    def clean(self) -> dict[str, Any]:
        """A bind with a DN and without a password would be anonymous."""
        cleaned: dict[str, Any] = super().clean() or {}
        for one, other in (("bind_dn", "bind_password"), ("status_attribute", "suspended_value")):
            if bool(cleaned.get(one)) != bool(cleaned.get(other)) and not self.errors:
                self.add_error(other, f"Enter both {one} and {other}, or neither.")
        return cleaned
