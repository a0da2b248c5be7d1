"""Fixtures of sign-ons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.db import connection

from ags.database import async_connection, batching, threads
from ags.sessions.services import database_behind
from providers.contract import Endpoint, KeyRing
from providers.dummy.strategy import Dummy
from providers.operator_token.strategy import OperatorToken
from tests.support.audit_search import add_event
from tests.support.batches import OtherTransaction, other_transaction
from tests.support.clients import ClientApp, HeadEnd
from tests.support.waiting import PATIENCE


@pytest.fixture
def signed_on(app: ClientApp) -> ClientApp:
    """The app, with a sign-on."""
    assert app.sign_on().status_code == 201
    return app


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """Return the log records about a restored database, of a process that has not logged any yet."""
    monkeypatch.setattr(database_behind, "reporter", database_behind.DatabaseBehindReporter())
    return lambda: [record for record in caplog.records if record.name == "ags.database"]


@pytest.fixture
def trail(app: ClientApp) -> ClientApp:
    """A session token, its redemption, a reuse of it, a refused request and a sign-out."""
    issued = app.head_end.present(app.head_end.token(), x_correlation_id="call-1").json()["sessionToken"]
    app.tokens = app.redeem(issued).json()
    assert app.redeem(issued).status_code == 401
    add_event(reason="key_unknown", kid="other-key", correlation_id="call-2", client_address="198.51.100.7")
    assert app.sign_out(x_correlation_id="call-3").status_code == 200
    return app


@pytest.fixture
def sign_on_with_token(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signed proofs with a jti sign devices on."""
    monkeypatch.setattr(OperatorToken, "endpoints", (*OperatorToken.endpoints, Endpoint.SIGNON))


@pytest.fixture
def verify_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One item for each call of `Dummy.verify`: True if no transaction was open."""
    calls: list[bool] = []
    verify = Dummy.verify

    def record_call(
        self: Dummy, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Any:
        calls.append(not connection.in_atomic_block)
        return verify(self, parameters, settings, keys)

    monkeypatch.setattr(Dummy, "verify", record_call)
    return calls


@pytest.fixture
def long_time_limits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limits to that of the test."""
    for module in (batching, threads):
        monkeypatch.setattr(module, "QUEUE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(async_connection, "RESPONSE_TIMEOUT", PATIENCE)
    settings.AGS_DATABASE_POOLER = "transaction"  # no limits in the startup options


@pytest.fixture
def other(db: None) -> Iterator[OtherTransaction]:
    with other_transaction() as other:
        yield other
