"""The dummy strategy: believes whatever account it is told. Refused outside DEBUG."""

from collections.abc import Mapping
from typing import Any

from django import forms
from rest_framework import serializers

from providers.contract import (
    Endpoint,
    Example,
    Identity,
    KeyRing,
    Parameter,
    Refusal,
    Refused,
    SessionTokenSettings,
    Strategy,
)


class DummyParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    Account = Parameter(description="The account to sign on, believed as it is.", max_length=255)


class DummySettings(SessionTokenSettings):
    """What staff configure."""

    refused_account = forms.CharField(
        required=False,
        initial="nobody",
        max_length=255,
        help_text="An account that is always refused, to try the refusal.",
    )


class Dummy(Strategy):
    """Proves nothing, and says so in its name."""

    slug = "dummy"
    label = "Dummy (development only)"
    endpoints = (Endpoint.GET_SESSION_TOKEN, Endpoint.SIGNON_WITH_SESSION_TOKEN, Endpoint.SIGNOUT)
    debug_only = True
    Parameters = DummyParameters
    Settings = DummySettings
    example = Example(parameters={"Account": "account-1"})

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account named, unless it is the one to refuse."""
        if parameters["Account"] == settings["refused_account"]:
            raise Refused(Refusal.CREDENTIAL_UNKNOWN)
        return Identity(account_id=parameters["Account"])
