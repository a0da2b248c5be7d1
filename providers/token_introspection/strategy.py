"""The token introspection strategy (RFC 7662): an access token of the operator's identity provider."""

import base64
import re
import secrets
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
    Step,
    Strategy,
    VerificationFailed,
    current_time,
)
from providers.token_introspection.response import validate
from providers.token_introspection.settings import TokenIntrospectionSettings
from providers.upstream import request

_TOKEN = re.compile("[ -~]++")  # VSCHAR (RFC 6749, appendix A.12)


class TokenIntrospectionParameters(serializers.Serializer[Any]):
    AccessToken = Parameter(description="An access token of the operator's identity provider.")


class TokenIntrospection(Strategy):
    """Responses are not cached: a token can be revoked, and a sign-on lasts longer than the token."""

    slug = "token_introspection"
    label = "Access token of an identity provider (introspection)"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    steps = (
        Step.FORM,
        Step.UPSTREAM,
        Step.CREDENTIALS,
        Step.TYPE,
        Step.TIMES,
        Step.ISSUER,
        Step.AUDIENCE,
        Step.CLAIMS,
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
        token = parameters["AccessToken"]
        if not _TOKEN.fullmatch(token):
            raise VerificationFailed(FailureReason.MALFORMED)
        response = _introspect(token, settings)
        if response.get("active") is not True:
            raise VerificationFailed(FailureReason.TOKEN_INACTIVE)
        return Identity(validate(response, settings, keys.tenant, current_time()))

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        host = urlsplit(settings["address"]).netloc
        active = _introspect(secrets.token_urlsafe(32), settings).get("active")
        if active is False:
            message = f"{host} accepts the credentials of AGS and returns active=false for an unknown token."
            yield CheckResult(True, message)
        elif active is True:
            message = f"{host} returns active=true for an unknown token: anybody could sign on."
            yield CheckResult(False, message)
        else:
            yield CheckResult(False, f"The response of {host} does not contain active.")
        if not (settings["audience"] or settings["scope"]):
            yield CheckResult(
                None,
                "Neither audience nor scope is set: "
                "tokens issued for other services of the operator are accepted too.",
            )


def _introspect(token: str, settings: Mapping[str, Any]) -> dict[str, Any]:
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
    response = request("POST", settings["address"], settings, headers=headers, body=urlencode(form).encode())
    if response.status == 400 and response.json_object().get("error") == "unsupported_token_type":
        return {"active": False}  # from some servers, for an unknown token (RFC 7009, section 2.2.1)
    if response.status != 200:
        raise response.unavailable()
    return response.json_object()
