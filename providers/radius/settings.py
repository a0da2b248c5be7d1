"""The settings of the provider `radius`."""

from typing import Any

from django import forms

from providers.contract import (
    HostField,
    PasswordSettings,
    SecretField,
    SessionTokenSettings,
    UpstreamSettings,
)

PASSWORD, LINE = "password", "line"

USERNAME_AS_SENT = "sent"


class RADIUSSettings(PasswordSettings, SessionTokenSettings, UpstreamSettings):
    ca_certificates = None  # type: ignore[assignment] # RADIUS uses the shared secret instead
    mode = forms.ChoiceField(
        choices=[(PASSWORD, "Username and password of a subscriber"), (LINE, "ID of an access line")],
        initial=PASSWORD,
        help_text="What the server verifies.",
    )
    host = HostField(help_text="The name or IP address of the server.")
    port = forms.IntegerField(min_value=1, max_value=65535, initial=1812, help_text="Its UDP port.")
    shared_secret = SecretField(
        destination_settings=("host", "port"),
        min_length=16,
        max_length=128,
        help_text="The shared secret of the server and AGS: at least 16 random characters.",
    )
    nas_identifier = forms.RegexField(
        r"\A[!-~]{1,253}\Z", max_length=253, initial="ags", help_text="The name of AGS in requests."
    )
    attempts = forms.IntegerField(
        min_value=1,
        max_value=3,
        initial=2,
        help_text="How many times a request is sent within the deadline. 1 to 3.",
    )
    account_attribute = forms.ChoiceField(
        choices=[
            (USERNAME_AS_SENT, "The username as sent"),
            ("USER_NAME", "User-Name in the response"),
            ("CHARGEABLE_USER_IDENTITY", "Chargeable-User-Identity"),
            ("CLASS", "Class"),
        ],
        initial=USERNAME_AS_SENT,
        help_text="The source of the account ID. Use the username only if the server is case-sensitive.",
    )
    line_secret = SecretField(
        destination_settings=(),
        required=False,
        min_length=16,
        max_length=128,
        help_text="For lines: the Password that the head-end must send. "
        "It is needed because the ID of a line is not a secret.",
    )
    line_password = SecretField(
        # The shared secret encrypts it in transit.
        destination_settings=("host", "port", "shared_secret"),
        required=False,
        max_length=128,
        help_text="For lines: the password that the server expects for every line.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        for name in ("line_secret", "line_password"):
            if cleaned.get("mode") == LINE and not cleaned.get(name) and name not in self.errors:
                self.add_error(name, "Required in the mode line.")
        return cleaned
