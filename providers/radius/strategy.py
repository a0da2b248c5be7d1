"""The RADIUS strategy: a server verifies a username and password, or a line ID (RFC 2865)."""

import hmac
import secrets
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rest_framework import serializers

from providers.contract import (
    IDENTIFIER,
    CheckResult,
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
from providers.radius.exchange import Attribute, ResponseCode, access_request, exchange
from providers.radius.settings import LINE, USERNAME_AS_SENT, RADIUSSettings
from providers.upstream import run

USERNAME_BYTES = 253
PASSWORD_BYTES = 128


class RADIUSParameters(serializers.Serializer[Any]):
    Username = Parameter(
        description="The subscriber's username, or the ID of the access line.",
        max_length=USERNAME_BYTES,
        username=True,
    )
    Password = Parameter(
        description="The subscriber's password, or the secret that the head-end sends with the ID of a line.",
        max_length=PASSWORD_BYTES,
        password=True,
    )


class RADIUS(Strategy):
    slug = "radius"
    label = "RADIUS server"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    steps = (Step.UPSTREAM, Step.CREDENTIALS, Step.ONE_ACCOUNT, Step.IDENTITY)
    Parameters = RADIUSParameters
    Settings = RADIUSSettings
    example = Example(
        settings={"host": "{host}", "port": "{port}", "shared_secret": "a-secret-that-the-two-share"},
        parameters={"Username": "subscriber-1", "Password": "the-password-of-the-subscriber"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        username, password = parameters["Username"], parameters["Password"]
        if not _can_be_sent(username, password):
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        if settings["mode"] == LINE:
            # The server would accept any existing line.
            if not hmac.compare_digest(password.encode(), settings["line_secret"].encode()):
                raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
            password = settings["line_password"]
        code, attributes = _request_access(username, password, settings)
        if code is not ResponseCode.ACCEPTED:  # AGS does not support challenges
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        return Identity(_get_account_id(username, attributes, settings["account_attribute"]))

    def get_username(self, parameters: Mapping[str, str], settings: Mapping[str, Any]) -> str | None:
        """Not the ID of a line: it is not secret, so anybody could use up the wrong passwords of a line."""
        return None if settings["mode"] == LINE else super().get_username(parameters, settings)

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterator[CheckResult]:
        """Send an unknown user. A signed response proves that the shared secret is correct."""
        server = f"{settings['host']}:{settings['port']}"
        username, password = f"nobody-{secrets.token_hex(8)}", secrets.token_hex(16)
        code, _ = _request_access(username, password, settings)
        if code is ResponseCode.REJECTED:
            yield CheckResult(True, f"{server} has the same shared secret and rejects an unknown user.")
        else:
            yield CheckResult(False, f"{server} does not reject an unknown user.")


def _can_be_sent(username: str, password: str) -> bool:
    """Return True if a packet can transfer both. Servers remove NUL from the end of a password."""
    try:
        sizes = len(username.encode()), len(password.encode())
    except UnicodeEncodeError:
        return False
    fits = sizes[0] <= USERNAME_BYTES and 0 < sizes[1] <= PASSWORD_BYTES
    return fits and bool(IDENTIFIER.fullmatch(username)) and "\0" not in password


def _request_access(
    username: str, password: str, settings: Mapping[str, Any]
) -> tuple[ResponseCode, Mapping[int, list[bytes]]]:
    attribute = settings["account_attribute"]
    # NUL requests the Chargeable-User-Identity (RFC 4372, section 2.1).
    attributes = {attribute: b"\0"} if attribute == Attribute.CHARGEABLE_USER_IDENTITY.name else {}
    packet = access_request(username, password, settings, **attributes)
    server = f"{settings['host']}:{settings['port']}"
    return run(settings["deadline"], server, partial(exchange, packet, settings))


def _get_account_id(username: str, attributes: Mapping[int, list[bytes]], attribute: str) -> str:
    if attribute == USERNAME_AS_SENT:
        return username
    values = attributes.get(Attribute[attribute], [])
    if len(values) != 1:
        raise VerificationFailed(
            FailureReason.ACCOUNT_AMBIGUOUS if values else FailureReason.IDENTITY_INVALID
        )
    try:
        return values[0].decode()
    except UnicodeDecodeError:
        raise VerificationFailed(FailureReason.IDENTITY_INVALID) from None
