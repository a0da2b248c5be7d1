"""The operator's login: username and password, verified by an HTTP endpoint of the operator."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rest_framework import serializers

from providers.contract import (
    CheckResult,
    Choice,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Strategy,
    VerificationFailed,
)
from providers.operator_login.endpoint import log_in
from providers.operator_login.password_decryption import decrypt_password, private_key
from providers.operator_login.settings import OperatorLoginSettings


class OperatorLoginParameters(serializers.Serializer[Any]):
    """What the client app sends."""

    Username = Parameter(description="The name by which the operator knows the subscriber.", max_length=255)
    Password = Parameter(
        description="The password; where the operator wants it so, encrypted with its RSA key, in base64.",
        max_length=2048,
        password=True,
    )


class OperatorLogin(Strategy):
    """Has the operator verify `Username` and `Password`."""

    slug = "operator_login"
    label = "Username and password, judged by the operator's endpoint"
    endpoints = (Endpoint.SIGNON, Endpoint.SUBSEQUENT_SIGNON, Endpoint.SIGNOUT)
    Parameters = OperatorLoginParameters
    Settings = OperatorLoginSettings
    example = Example(
        settings={
            "address": "https://{upstream}/login",
            "user": "ags",
            "secret": "the secret of AGS",
        },
        parameters={"Username": "anna", "Password": "a password of hers"},
    )

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        """Return the account, or the accounts, that the operator returns."""
        username, password = parameters["Username"], parameters["Password"]
        if not (username and password):
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        if settings["encryption"] == "decrypt":
            password = decrypt_password(password, private_key(settings["private_key"]), settings["padding"])
        accounts = log_in(keys.tenant, username, password, settings)
        return Identity(accounts[0].id) if len(accounts) == 1 else Choice(accounts)

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        """Log in as a subscriber who does not exist."""
        if settings["encryption"] == "decrypt":
            bits = private_key(settings["private_key"]).key_size
            yield CheckResult(True, f"Passwords are decrypted with an RSA key of {bits} bits.")
        host = urlsplit(settings["address"]).netloc
        # Also of the form of an encrypted one: the endpoint must refuse what it cannot decrypt.
        password = base64.b64encode(secrets.token_bytes(256)).decode()
        try:
            log_in(keys.tenant, f"nobody-{secrets.token_hex(8)}", password, settings)
        except VerificationFailed as refused:
            good = refused.reason is FailureReason.CREDENTIAL_UNKNOWN
            told = "as it should" if good else f"but with {refused.reason}, as if it knew him"
            yield CheckResult(
                good, f"{host} accepts AGS, and refuses a subscriber that nobody knows, {told}."
            )
        else:
            yield CheckResult(False, f"{host} accepts a subscriber that nobody knows: it lets anybody in.")
