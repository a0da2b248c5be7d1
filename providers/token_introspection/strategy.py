"""Token introspection (RFC 7662) at the operator's identity provider."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from rest_framework import serializers

from providers.contract import (
    CheckResult,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Strategy,
    VerificationFailed,
)
from providers.token_introspection.response import validate
from providers.token_introspection.settings import TokenIntrospectionSettings
from providers.upstream import request

_TOKEN = re.compile("[ -~]++")
"""VSCHAR, of which an access token consists (RFC 6749, appendix A.12)."""


class TokenIntrospectionParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    AccessToken = Parameter(description="An access token of the operator's identity provider.")


class TokenIntrospection(Strategy):
    """Introspects each `AccessToken`, without a cache.

    No answer is kept: a token can be revoked at any moment, and what is granted for it outlives it.
    """

    slug = "token_introspection"
    label = "Access token of an identity provider (introspection)"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    Parameters = TokenIntrospectionParameters
    Settings = TokenIntrospectionSettings
    example = Example(
        settings={
            "address": "https://{upstream}/introspect",
            "client_id": "ags",
            "client_secret": "the secret of a client",
        },
        parameters={"AccessToken": "mF_9.B5f-4.1JqM"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account of an active token."""
        token = parameters["AccessToken"]
        if not _TOKEN.fullmatch(token):
            raise VerificationFailed(FailureReason.MALFORMED)
        said = _introspect(token, settings)
        if said.get("active") is not True:
            raise VerificationFailed(FailureReason.TOKEN_INACTIVE)
        return Identity(validate(said, settings, keys.tenant, time.time()))

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        """Introspect a token that was never issued."""
        host = urlsplit(settings["address"]).netloc
        said = _introspect(secrets.token_urlsafe(32), settings).get("active")
        if said is False:
            yield CheckResult(
                True,
                f"{host} accepts the client of AGS, and knows a token that nobody has issued as inactive.",
            )
        elif said is True:
            yield CheckResult(
                False, f"{host} calls a token active that nobody has issued: it lets anybody in."
            )
        else:
            yield CheckResult(False, f"{host} answers, but does not say whether a token is active.")
        if not (settings["audience"] or settings["scope"]):
            yield CheckResult(
                None,
                "Neither audience nor scope is set: "
                "a token that was made for another service of the operator is accepted as well.",
            )


def _introspect(token: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the introspection response (RFC 7662, section 2.2). Raises `UpstreamUnavailable`."""
    form = {"token": token}
    if settings["token_type_hint"]:
        form["token_type_hint"] = settings["token_type_hint"]
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    client = settings["client_id"], settings["client_secret"]
    if settings["client_authentication"] == "client_secret_post":
        form["client_id"], form["client_secret"] = client
    else:
        pair = ":".join(map(quote_plus, client)).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    answer = request("POST", settings["address"], settings, headers=headers, body=urlencode(form).encode())
    if answer.status == 400 and answer.json_object().get("error") == "unsupported_token_type":
        return {"active": False}  # some servers respond so to unknown tokens (RFC 7009)
    if answer.status != 200:
        raise answer.unavailable()
    return answer.json_object()
