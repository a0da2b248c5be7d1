"""Fixtures of the OAuth endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.operators import create_platform


@pytest.fixture
def server(nagra: HeadEnd) -> Platform:
    """A resource server of nagra."""
    return create_platform("nagra")


@pytest.fixture
def tokens(app: ClientApp) -> dict[str, Any]:
    """The tokens of a sign-on."""
    app.sign_on("Kühn 7")
    return app.tokens
