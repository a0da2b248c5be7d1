"""What staff configure: forms, and the fields that several providers share."""

from __future__ import annotations

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
    """A setting that is a secret, of at most 1,024 characters: encrypted at rest, entered and never shown.

    `sent_to` names the other settings that decide who receives the secret, or what it decrypts: address,
    host, port, trusted certificates, user name. When one of them changes, the secret must be entered again.
    `()` declares that it never leaves AGS. Without a declaration, every other setting counts.

    `lines`: whether it has several, such as a private key in PEM.
    """

    def __init__(self, *, sent_to: tuple[str, ...] | None = None, lines: bool = False, **kwargs: Any) -> None:
        self.sent_to = sent_to
        self.lines = lines
        own = {"autocomplete": "new-password"}
        widget = SecretLines(attrs=own) if lines else forms.PasswordInput(render_value=False, attrs=own)
        super().__init__(**{"max_length": 1024, "strip": False, "widget": widget, **kwargs})


class SecretLines(forms.Textarea):
    """Lines that are entered, and never rendered."""

    def __init__(self, attrs: Mapping[str, Any] | None = None) -> None:
        super().__init__({"rows": 4, "spellcheck": "false", **(attrs or {})})

    def format_value(self, value: Any) -> None:
        """Show nothing of it."""


class CertificatesField(forms.CharField):
    """Certificates of authorities as PEM; empty: those of the operating system are trusted.

    Only the certificates are kept: not what a file has before, between and behind them.
    """

    def __init__(self, **kwargs: Any) -> None:
        options = {
            "required": False,
            "label": "CA certificates",
            "widget": forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
            "max_length": CERTIFICATES_MAX_LENGTH,
            "help_text": "The authorities (PEM) that alone are trusted for this upstream. "
            "Empty: those of the operating system.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the certificates, once OpenSSL has read them."""
        text: str = super().clean(value) or ""
        if not text:
            return ""
        certificates = "\n".join(_certificates(text))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=certificates)
        except (ssl.SSLError, TypeError, ValueError):  # TypeError: it is not ASCII
            raise ValidationError("This is no certificate in PEM.") from None
        if not context.get_ca_certs():
            raise ValidationError("None of these is the certificate of an authority.")
        return certificates


_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
"""The labels that OpenSSL knows."""


def _certificates(text: str) -> Iterator[str]:
    for block in text.split("-----BEGIN ")[1:]:
        label, _, rest = block.partition("-----")
        if label in _CERTIFICATES:
            body, end, _ = rest.partition(f"-----END {label}-----")
            yield f"-----BEGIN {label}-----{body}{end}"


class HTTPSField(forms.CharField):
    """An https address, of at most 500 characters: with a host, perhaps a port, a path and a query."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 500, "widget": forms.URLInput, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the address."""
        text: str = super().clean(value) or ""
        if text and not _is_https(text):
            raise ValidationError("Enter an address such as https://login.example/path, in ASCII.")
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
    """The name or the address of a server, of at most 253 characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 253, "validators": [_HOST], **kwargs})


_HOST = RegexValidator(
    r"\A[A-Za-z0-9.:_-]++\Z", "Enter a name such as login.example, or an address, in ASCII."
)


class SessionTokenSettings(forms.Form):
    """What staff configure for any service that answers `getSessionToken`."""

    session_token_ttl = forms.IntegerField(
        label="Session token lifetime",
        min_value=1,
        max_value=3600,
        initial=300,
        help_text="Seconds in which a session token can be redeemed. At most 3600.",
    )


class UpstreamSettings(forms.Form):
    """What staff configure for any service that asks a server of the operator."""

    deadline = forms.FloatField(
        min_value=0.1,
        max_value=10,
        initial=3.0,
        help_text="Seconds that a caller waits for the upstream at most, before a 503. 0.1 to 10.",
    )
    ca_certificates = CertificatesField()
