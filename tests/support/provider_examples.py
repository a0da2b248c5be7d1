"""Helpers of the acceptance suite, which uses the example of each strategy."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
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
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import SHORT
from tests.support.waiting import PATIENCE

GARBAGE = [
    "",
    " ",
    "x" * 8192,
    "..",
    "a.b.c",
    "eyJhbGciOiJub25lIn0.e30.",
    "\u202e\U0001f600",
    "' OR 1=1 --",
    "{}",
    "[" * 4000,
    "%s%n{0}",
    "*)(uid=*",
    "\r\nX-Other: 1",
]


class WatchedKeys(Mapping[str, Any]):
    """An empty mapping of keys that records reads."""

    was_read = False

    def __getitem__(self, kid: str) -> Any:
        self.was_read = True
        raise KeyError(kid)

    def __iter__(self) -> Iterator[str]:
        self.was_read = True
        return iter(())

    def __len__(self) -> int:
        self.was_read = True
        return 0


def create_service(strategy: Strategy, port: int) -> Service:
    service = Service(
        tenant_id="nagra",
        name="Offered",
        strategy=strategy.slug,
        display_name="x",
        enabled=True,
        settings=settings_at(strategy, port),
    )
    service.save()
    return service


def post_parameters(head_end: HeadEnd, endpoint: Endpoint, parameters: Mapping[str, str]) -> Any:
    return head_end.client.generic(
        "POST",
        f"/ags{endpoint.value}",
        json.dumps(request_body(endpoint, parameters.items())),
        "application/json",
        headers=head_end.headers(x_auth_service_id="Offered"),
    )


# Upstreams


def call_with_patience(call: Callable[[], Any]) -> Any:
    """Return the result of `call`. Fails if it takes PATIENCE seconds."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread of the test
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(PATIENCE)


_PLACEHOLDER = re.compile(r"\{(?:upstream|host|port)\}")


def has_upstream(strategy: Strategy) -> bool:
    """Return True if the example contains the address of an upstream."""
    return bool(placeholders(strategy))


def settings_at(strategy: Strategy, port: int) -> dict[str, Any]:
    """Return the example's settings for an upstream on this port of localhost, with a short deadline."""
    words = {"{upstream}": f"127.0.0.1:{port}", "{host}": "127.0.0.1", "{port}": str(port)}

    def fill(value: Any) -> Any:
        if value == "{port}":
            return port
        return _PLACEHOLDER.sub(lambda found: words[found[0]], value) if isinstance(value, str) else value

    hasty = {"deadline": SHORT, "ca_certificates": authority().certificate}
    given = {name: value for name, value in hasty.items() if name in strategy.Settings.base_fields}
    return given | {name: fill(value) for name, value in strategy.example.settings.items()}


def cleaned(strategy: Strategy, port: int = 1) -> Mapping[str, Any]:
    """Return the settings that `verify` receives, without a service and without the database."""
    defaults = {name: field.initial for name, field in strategy.Settings.base_fields.items()}
    form = strategy.Settings(defaults | settings_at(strategy, port))
    assert form.is_valid(), form.errors
    return form.cleaned_data


def placeholders(strategy: Strategy) -> set[str]:
    """Return the names of the settings in the example that contain the address of an upstream."""
    texts = {name: value for name, value in strategy.example.settings.items() if isinstance(value, str)}
    return {name for name, text in texts.items() if _PLACEHOLDER.search(text)}


def try_verify(
    strategy: Strategy, settings: Mapping[str, Any], parameters: Mapping[str, str] | None = None
) -> Identity | Choice | VerificationFailed | UpstreamUnavailable:
    """Return the result or the exception of `verify`. Any other exception fails the test."""
    given = strategy.example.parameters if parameters is None else parameters
    try:
        return strategy.verify(given, settings, KeyRing("nagra", {}))
    except (VerificationFailed, UpstreamUnavailable) as outcome:
        return outcome


def secrets_of(strategy: Strategy) -> list[str]:
    """Return the secret settings and the parameters of the example: they must not be logged or returned."""
    settings, fields = strategy.example.settings, strategy.Settings.base_fields
    secret = [value for name, value in settings.items() if isinstance(fields[name], SecretField)]
    # Short words such as "x" or "admin" occur in output for other reasons.
    return [text for text in (*secret, *strategy.example.parameters.values()) if len(text) >= 8]


def authenticating_endpoints(strategy: Strategy) -> list[Endpoint]:
    """Return the endpoints that receive the parameters."""
    return [e for e in (Endpoint.SIGNON, Endpoint.GET_SESSION_TOKEN) if e in strategy.endpoints]


def request_body(endpoint: Endpoint, parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the body of a request."""
    device = {"deviceInformation": {"deviceType": "Android"}} if endpoint is Endpoint.SIGNON else {}
    return {"parameters": [{"name": name, "value": value} for name, value in parameters], **device}
