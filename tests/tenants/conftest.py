"""Fixtures of the tests of tenants."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django import forms
from django.core.management import call_command

from ags.server.logs import JSONFormatter, TextFormatter
from providers.contract import (
    SecretField,
    SessionTokenSettings,
)
from providers.registry import strategies
from tenants import snapshot as module
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.operators import add_signed_jwt_service
from tests.support.secret_destinations import complete, create_service
from tests.support.snapshot import Clock, WaitingThreads


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)

    def lines() -> str:
        formats: list[logging.Formatter] = [JSONFormatter(), TextFormatter()]
        return "\n".join(formatter.format(record) for record in caplog.records for formatter in formats)

    return lines


@pytest.fixture
def two_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy with a required and an optional secret."""

    class Settings(SessionTokenSettings):
        required_secret = SecretField(destination_settings=(), min_length=4)
        optional_secret = SecretField(destination_settings=(), required=False)
        plain = forms.CharField(required=False)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Settings)


@pytest.fixture
def introspection(nagra: HeadEnd) -> Service:
    strategy = strategies()["token_introspection"]
    return create_service(strategy, **complete(strategy))


@pytest.fixture
def signed_jwt(nagra: HeadEnd) -> Service:
    """A service that verifies with the public keys of the tenant."""
    return add_signed_jwt_service()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Make freshness independent of the duration of the test."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pass_time(clock: Clock) -> Callable[[float], None]:
    """Advance the clock of the snapshot."""
    return clock.pass_time


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> WaitingThreads:
    waiting = WaitingThreads()
    monkeypatch.setattr(snapshot, "_lock", waiting)
    monkeypatch.setattr(module, "_wait_for_result", waiting.wait_for_result)
    return waiting


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., list[str]]:
    """Run the command with a document that is dumped to YAML, or with the given text or bytes."""

    def run(document: Any, *options: str) -> list[str]:
        path = tmp_path / "tenants.yaml"
        text = document if isinstance(document, str | bytes) else yaml.safe_dump(document)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        out = io.StringIO()
        call_command("apply", str(path), *options, stdout=out)
        return out.getvalue().splitlines()

    return run
