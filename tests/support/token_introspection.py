"""The provider `token_introspection`: settings and results."""

from __future__ import annotations

from typing import Any

import pytest

from providers.contract import FailureReason, Identity, KeyRing, VerificationFailed
from providers.token_introspection.strategy import TokenIntrospection
from tenants.services.settings import clean_settings
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG

RING = KeyRing("nagra", {})
SECRET = "a secret: of + and % marker4711"


def cleaned(**settings: Any) -> Any:
    good = {"address": "https://localhost/i", "client_id": "ags", "client_secret": SECRET}
    trusting = {"ca_certificates": authority().certificate}
    valid = clean_settings(TokenIntrospection(), good | trusting | settings)[1]
    return {**valid, "deadline": LONG}


def verify(token: str, **settings: Any) -> Identity:
    return TokenIntrospection().verify({"AccessToken": token}, cleaned(**settings), RING)


def get_reason(token: str, **settings: Any) -> tuple[FailureReason, str | None]:
    with pytest.raises(VerificationFailed) as raised:
        verify(token, **settings)
    return raised.value.reason, raised.value.claim
