"""The settings of the provider `radius`."""

from __future__ import annotations

from typing import Any

from django import forms

from providers.contract import HostField, SecretField, SessionTokenSettings, UpstreamSettings

PASSWORD, LINE = "password", "line"

SENT = "sent"


class RADIUSSettings(SessionTokenSettings, UpstreamSettings):
    """Server, shared secret, and rules for lines."""

    ca_certificates = None  # type: ignore[assignment] # the shared secret takes their place
    mode = forms.ChoiceField(
        choices=[(PASSWORD, "username and password of a subscriber"), (LINE, "ID of a line")],
        initial=PASSWORD,
        help_text="Whether Username and Password are those of a subscriber, or identify a line.",
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
            (SENT, "the username as it was sent"),
            ("USER_NAME", "User-Name of the answer"),
            ("CHARGEABLE_USER_IDENTITY", "Chargeable-User-Identity"),
            ("CLASS", "Class"),
        ],
        initial=SENT,
        help_text="The source of the account ID. Use the username as sent only if the server compares case.",
    )
    line_secret = SecretField(
        destination_settings=(),
        required=False,
        min_length=16,
        max_length=128,
        help_text="For lines: the Password that the head-end sends. "
        "The ID of a line is no secret, so something else must be.",
    )
    line_password = SecretField(
        # Everybody who has the shared secret can read it in transit.
        destination_settings=("host", "port", "shared_secret"),
        required=False,
        max_length=128,
        help_text="For lines: the password that the server expects for every line.",
    )

    def clean(self) -> dict[str, Any]:
        """Require the settings of lines."""
        given: dict[str, Any] = super().clean() or {}
        for name in ("line_secret", "line_password"):
            if given.get("mode") == LINE and not given.get(name) and name not in self.errors:
                self.add_error(name, "With the mode line, this is needed.")
        return given
