"""A strategy as the acceptance suite tries it: with its own example, which a service and a caller follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from providers.contract import (
    Choice,
    Endpoint,
    Identity,
    KeyRing,
    SecretField,
    Strategy,
    UpstreamUnavailable,
    VerificationFailed,
)
from tests.upstream.authority import authority
from tests.upstream.deadlines import HASTY

_PLACEHOLDER = re.compile(r"\{(?:upstream|host|port)\}")


def asks(strategy: Strategy) -> bool:
    """Whether its example names an upstream."""
    return bool(placeholders(strategy))


def settings_at(strategy: Strategy, port: int) -> dict[str, Any]:
    """What staff would enter for an upstream on that port of loopback, with a short deadline."""
    words = {"{upstream}": f"127.0.0.1:{port}", "{host}": "127.0.0.1", "{port}": str(port)}

    def filled(value: Any) -> Any:
        if value == "{port}":
            return port
        return _PLACEHOLDER.sub(lambda found: words[found[0]], value) if isinstance(value, str) else value

    hasty = {"deadline": HASTY, "ca_certificates": authority().certificate}
    given = {name: value for name, value in hasty.items() if name in strategy.Settings.base_fields}
    return given | {name: filled(value) for name, value in strategy.example.settings.items()}


def cleaned(strategy: Strategy, port: int = 1) -> Mapping[str, Any]:
    """What `verify` is given, without a service, and without the database."""
    defaults = {name: field.initial for name, field in strategy.Settings.base_fields.items()}
    form = strategy.Settings(defaults | settings_at(strategy, port))
    assert form.is_valid(), form.errors
    return form.cleaned_data


def placeholders(strategy: Strategy) -> set[str]:
    """The settings of its example that name an upstream."""
    texts = {name: value for name, value in strategy.example.settings.items() if isinstance(value, str)}
    return {name for name, text in texts.items() if _PLACEHOLDER.search(text)}


def tried(
    strategy: Strategy, settings: Mapping[str, Any], parameters: Mapping[str, str] | None = None
) -> Identity | Choice | VerificationFailed | UpstreamUnavailable:
    """What comes of it. Anything else is an error."""
    given = strategy.example.parameters if parameters is None else parameters
    try:
        return strategy.verify(given, settings, KeyRing("nagra", {}))
    except (VerificationFailed, UpstreamUnavailable) as verdict:
        return verdict


def secrets_of(strategy: Strategy) -> list[str]:
    """What of its example may turn up nowhere: secret settings, and what a caller sends."""
    settings, fields = strategy.example.settings, strategy.Settings.base_fields
    secret = [value for name, value in settings.items() if isinstance(fields[name], SecretField)]
    # A word such as "x" or "admin" stands in many a line for another reason.
    return [text for text in (*secret, *strategy.example.parameters.values()) if len(text) >= 8]


def proofs(strategy: Strategy) -> list[Endpoint]:
    """The calls that take its parameters."""
    return [e for e in (Endpoint.SIGNON, Endpoint.GET_SESSION_TOKEN) if e in strategy.endpoints]


def body(endpoint: Endpoint, parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What a caller posts there."""
    device = {"deviceInformation": {"deviceType": "Android"}} if endpoint is Endpoint.SIGNON else {}
    return {"parameters": [{"name": name, "value": value} for name, value in parameters], **device}
