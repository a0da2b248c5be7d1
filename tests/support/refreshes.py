"""Refreshes: another request during a refresh, and a full history of used tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from ags.sessions.services.refresh import MAX_USED
from tests.support.clients import ClientApp
from tests.support.sign_ons import set_grace_period_of_a_minute


@contextmanager
def concurrent_refresh(refresh: Callable[[], Any]) -> Iterator[list[Any]]:
    """Let another request refresh between SELECT and UPDATE; yield a list with its response."""
    responses: list[Any] = []

    def refresh_before(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device") and not responses:
            responses.append(None)
            responses[0] = refresh()
        return execute(sql, *rest)

    with connection.execute_wrapper(refresh_before):
        yield responses


def fill_history(app: ClientApp) -> list[str]:
    """Refresh until the history of used tokens is full, and return them."""
    set_grace_period_of_a_minute()
    used = []
    for _ in range(MAX_USED):
        used.append(app.tokens["refresh_token"])
        assert app.refresh().status_code == 200
    return used
