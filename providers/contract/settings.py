"""The settings that staff configure: base forms, and fields shared by providers."""

import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

CERTIFICATES_MAX_LENGTH = 64 * 1024


class SecretField(forms.CharField):
    """A secret of at most 1,024 characters. AGS encrypts it at rest and never shows it.

    `destination_settings` names the other settings that determine who receives the secret, or what it
    decrypts: address, host, port, trusted certificates, user name. If one of them changes, staff must enter
    the secret again. `()` declares that the secret never leaves AGS.

    `multiline`: the secret has several lines, such as a private key in PEM.
    """

    def __init__(
        self, *, destination_settings: tuple[str, ...], multiline: bool = False, **kwargs: Any
    ) -> None:
        self.destination_settings = destination_settings
        self.multiline = multiline
        # Neither renders the value: render_value of PasswordInput is False by default.
        widget = (SecretTextarea if multiline else forms.PasswordInput)({"autocomplete": "new-password"})
        super().__init__(**{"max_length": 1024, "strip": False, "widget": widget, **kwargs})


class SecretTextarea(forms.Textarea):
    """A textarea that never renders its value."""

    def __init__(self, attrs: Mapping[str, Any] | None = None) -> None:
        super().__init__({"rows": 4, "spellcheck": "false", **(attrs or {})})

    def format_value(self, value: Any) -> None:
        """Return None: nothing is rendered."""


class CertificatesField(forms.CharField):
    """CA certificates in PEM. If empty, the CA certificates of the operating system are trusted.

    The cleaned value contains the certificates only, without the text around them.
    """

    def __init__(self, **kwargs: Any) -> None:
        options = {
            "required": False,
            "label": "CA certificates",
            "widget": forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
            "max_length": CERTIFICATES_MAX_LENGTH,
            "help_text": "The only CA certificates (PEM) to trust for this upstream. "
            "Empty: those of the operating system.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> str:
        text: str = super().clean(value) or ""
        if not text:
            return ""
        certificates = "\n".join(_certificates(text))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=certificates)
        except (ssl.SSLError, TypeError, ValueError):  # TypeError: not ASCII
            raise ValidationError("Enter certificates in PEM.") from None
        if not context.get_ca_certs():
            raise ValidationError("Enter at least one CA certificate.")
        return certificates


_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
"""The PEM labels that OpenSSL accepts for certificates."""


def _certificates(text: str) -> Iterator[str]:
    for block in text.split("-----BEGIN ")[1:]:
        label, _, rest = block.partition("-----")
        if label in _CERTIFICATES:
            body, end, _ = rest.partition(f"-----END {label}-----")
            yield f"-----BEGIN {label}-----{body}{end}"


class HTTPSField(forms.CharField):
    """An https URL of at most 500 characters, without user name and fragment."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 500, "widget": forms.URLInput, **kwargs})

    def clean(self, value: Any) -> str:
        text: str = super().clean(value) or ""
        if text and not _is_https(text):
            raise ValidationError("Enter a URL such as https://login.example/path, in ASCII.")
        return text


_URL = re.compile(r"https://[A-Za-z0-9.:\[\]_-]++([/?][!-~]*+)?")


def _is_https(text: str) -> bool:
    if not _URL.fullmatch(text) or "#" in text or "\\" in text:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class HostField(forms.CharField):
    """A host name or IP address of at most 253 characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 253, "validators": [_HOST], **kwargs})


_HOST = RegexValidator(
    r"\A[A-Za-z0-9.:_-]++\Z", "Enter a host name such as login.example, or an IP address, in ASCII."
)


MAX_SESSION_TOKEN_TTL = 3600
"""Seconds."""


class SessionTokenSettings(forms.Form):
    """The settings, entered by staff, of every service that offers `GET_SESSION_TOKEN`."""

    session_token_ttl = forms.IntegerField(
        label="Session token lifetime",
        min_value=1,
        max_value=MAX_SESSION_TOKEN_TTL,
        initial=300,
        help_text=f"Seconds until a session token expires. At most {MAX_SESSION_TOKEN_TTL}.",
    )


MAX_PASSWORD_FAILURES = 20
"""The default of `max_password_failures`."""


class OptionalIntegerField(forms.IntegerField):
    """An integer that is stored only if it is not the initial value.

    For a setting that is added to an existing strategy: processes of the previous release do not offer a
    service with a setting that they do not have.
    """

    omit_initial = True

    def clean(self, value: Any) -> Any:
        return super().clean(self.initial if value in self.empty_values else value)


class PasswordSettings(forms.Form):
    """The settings, entered by staff, of every service that verifies the passwords of subscribers."""

    max_password_failures = OptionalIntegerField(
        label="Wrong passwords",
        min_value=0,
        max_value=1000,
        required=False,
        initial=MAX_PASSWORD_FAILURES,
        help_text="Wrong passwords of one username in 15 minutes. Any more are not verified, except those of "
        "a device that has signed on with this username before. 0: no limit.",
    )


class UpstreamSettings(forms.Form):
    """The settings, entered by staff, of every service that sends requests to a server of the operator."""

    deadline = forms.FloatField(
        min_value=0.1,
        max_value=10,
        initial=3.0,
        help_text="Seconds to wait for the upstream before the caller gets a 503. 0.1 to 10.",
    )
    ca_certificates = CertificatesField()
