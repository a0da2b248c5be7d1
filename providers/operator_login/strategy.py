"""The operator login strategy: username and password, verified by an HTTP endpoint of the operator."""

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
    Step,
    Strategy,
    VerificationFailed,
)
from providers.operator_login.endpoint import log_in
from providers.operator_login.password_decryption import decrypt_password, private_key
from providers.operator_login.settings import OperatorLoginSettings


class OperatorLoginParameters(serializers.Serializer[Any]):
    Username = Parameter(description="The subscriber's username.", max_length=255, username=True)
    Password = Parameter(
        description="The password. If the operator requires it: encrypted with its RSA key, in base64.",
        max_length=2048,
        password=True,
    )


class OperatorLogin(Strategy):
    slug = "operator_login"
    label = "Username and password, verified by the operator's endpoint"
    endpoints = (Endpoint.SIGNON, Endpoint.SUBSEQUENT_SIGNON, Endpoint.SIGNOUT)
    steps = (Step.UPSTREAM, Step.CREDENTIALS, Step.ACCOUNT)
    Parameters = OperatorLoginParameters
    Settings = OperatorLoginSettings
    example = Example(
        settings={"address": "https://{upstream}/login", "user": "ags", "secret": "the secret of AGS"},
        parameters={"Username": "anna", "Password": "the-password-of-anna"},
    )

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        username, password = parameters["Username"], parameters["Password"]
        if not (username and password):
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        if settings["encryption"] == "decrypt":
            password = decrypt_password(password, private_key(settings["private_key"]), settings["padding"])
        accounts = log_in(keys.tenant, username, password, settings)
        return Identity(accounts[0].id) if len(accounts) == 1 else Choice(accounts)

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        if settings["encryption"] == "decrypt":
            bits = private_key(settings["private_key"]).key_size
            yield CheckResult(True, f"Passwords are decrypted with an RSA key of {bits} bits.")
        host = urlsplit(settings["address"]).netloc
        # It looks like an encrypted password: an endpoint that decrypts must reject it in the same way.
        password = base64.b64encode(secrets.token_bytes(256)).decode()
        try:
            log_in(keys.tenant, f"nobody-{secrets.token_hex(8)}", password, settings)
        except VerificationFailed as error:
            passed = error.reason is FailureReason.CREDENTIAL_UNKNOWN
            message = f"{host} accepts the credentials of AGS and rejects an unknown subscriber"
            yield CheckResult(passed, f"{message}." if passed else f"{message}, but as {error.reason}.")
        else:
            yield CheckResult(False, f"{host} accepts an unknown subscriber: anybody could sign on.")
