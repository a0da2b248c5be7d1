"""The strategy: user name and password, for a server of the operator to judge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.core.validators import RegexValidator
from rest_framework import serializers

from providers.contract import (
    TEXT,
    Endpoint,
    Example,
    Finding,
    HTTPSField,
    Identity,
    KeyRing,
    Outage,
    Parameter,
    Refusal,
    Refused,
    SecretField,
    SessionTokenSettings,
    Strategy,
    Unavailable,
    UpstreamSettings,
)
from providers.strict_json import NotStrictJSON, parse
from providers.upstream import Answer, ask


class LineParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    Username = Parameter(description="The name of the subscriber.", max_length=255)
    Password = Parameter(description="His password.", max_length=255, password=True)


class LineSettings(SessionTokenSettings, UpstreamSettings):
    """What staff configure."""

    url = HTTPSField(help_text="The address that judges user name and password.")
    api_key = SecretField(
        sent_to=("url", "ca_certificates"),
        validators=[RegexValidator(r"\A[!-~]+\Z", "Only visible characters of ASCII fit into a header.")],
        help_text="What AGS proves itself by there, sent as Authorization: Bearer.",
    )


class Line(Strategy):
    """Proof by user name and password."""

    slug = "line"
    label = "Line"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    Parameters = LineParameters
    Settings = LineSettings
    example = Example(
        settings={"url": "https://{upstream}/login", "api_key": "key-of-the-example"},
        parameters={"Username": "subscriber-1", "Password": "correct horse"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account that the operator names."""
        answer = _ask(parameters["Username"], parameters["Password"], settings)
        if answer.status == 404:
            raise Refused(Refusal.CREDENTIAL_UNKNOWN)
        return Identity(account_id=_account(answer))

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[Finding]:
        """Ask about nobody, whom the operator should not know."""
        known = _ask("", "", settings).status != 404
        host = urlsplit(settings["url"]).netloc
        yield Finding(
            good=not known,
            sentence=f"{host} answers, and accepts {'anybody' if known else 'the API key'}.",
        )


def _ask(username: str, password: str, settings: Mapping[str, Any]) -> Answer:
    """Return the answer, 200 or 404. Raises `Unavailable`."""
    answer = ask(
        "POST",
        settings["url"],
        settings,
        headers={"Authorization": f"Bearer {settings['api_key']}", "Content-Type": "application/json"},
        body=json.dumps({"username": username, "password": password}).encode(),
    )
    if answer.status in {401, 403}:
        raise Unavailable(Outage.REFUSES_US)
    if answer.status not in {200, 404}:
        raise Unavailable(Outage.WRONG, f"it answers {answer.status}")
    return answer


def _account(answer: Answer) -> str:
    try:
        said = parse(answer.body, 4)
    except NotStrictJSON:
        said = None
    account = said.get("account") if isinstance(said, dict) else None
    if not isinstance(account, str) or not TEXT.fullmatch(account):
        raise Unavailable(Outage.WRONG, "it names no account")
    return account
