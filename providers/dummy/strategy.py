"""The dummy strategy: accepts any account. Requires DEBUG=on."""

import hmac
from collections.abc import Mapping
from typing import Any

from django import forms
from rest_framework import serializers

from providers.contract import (
    Account,
    Choice,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    SecretField,
    SessionTokenSettings,
    Strategy,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)


class DummyParameters(serializers.Serializer[Any]):
    Account = Parameter(
        description="The account to sign on, or several, separated by commas. It is not verified.",
        max_length=255,
    )
    Passphrase = Parameter(
        description="The passphrase of the service, if it has one.",
        max_length=1024,
        password=True,
        required=False,
    )


class DummySettings(SessionTokenSettings):
    refused_account = forms.CharField(
        required=False,
        initial="nobody",
        max_length=255,
        help_text="An account that always fails verification.",
    )
    unavailable_account = forms.CharField(
        required=False,
        initial="away",
        max_length=255,
        help_text="An account for which the upstream is always unavailable.",
    )
    passphrase = SecretField(
        destination_settings=(), required=False, help_text="If set, callers must send it."
    )


class Dummy(Strategy):
    slug = "dummy"
    label = "Dummy (development only)"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.SUBSEQUENT_SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    debug_only = True
    blocking = False
    Parameters = DummyParameters
    Settings = DummySettings
    example = Example(parameters={"Account": "account-1"})

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        accounts = parameters["Account"].split(",")
        passphrase = settings["passphrase"]
        sent = parameters.get("Passphrase", "")
        if passphrase and not hmac.compare_digest(sent.encode(), passphrase.encode()):
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        if settings["refused_account"] in accounts:
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        if settings["unavailable_account"] in accounts:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        if len(accounts) > 1:
            return Choice(tuple(Account(account, f"Account {account}") for account in accounts))
        return Identity(account_id=accounts[0])
