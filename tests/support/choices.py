"""Choices between several accounts."""

from __future__ import annotations

from typing import Any

from ags.sessions.models import AccountChoice
from tests.support.clients import ClientApp
from tests.support.responses import CORRELATION_ID


def redeem_choice(app: ClientApp, user_token: str | None, body: Any = None, **headers: str | None) -> Any:
    """Redeem a choice with a fixed correlation ID."""
    return app.choose_account(user_token, body, **{"x_correlation_id": CORRELATION_ID, **headers})


def get_choices() -> list[AccountChoice]:
    return list(AccountChoice.objects.for_tenant("nagra").order_by("pk"))


def is_choice_open() -> bool:
    (row,) = get_choices()
    return row.used_at is None
