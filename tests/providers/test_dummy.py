"""The dummy: accepts any account except the configured ones."""

from __future__ import annotations

from typing import Any

import pytest

from providers.contract import FailureReason, Identity, KeyRing, VerificationFailed
from providers.dummy.strategy import Dummy
from tests.support.provider_examples import cleaned


def verify(account: str, **settings: Any) -> Any:
    return Dummy().verify({"Account": account}, {**cleaned(Dummy()), **settings}, KeyRing("nagra", {}))


@pytest.mark.parametrize("account", ["account-1", "Ünïcode", "x" * 255])
def test_accepts(account: str) -> None:
    assert verify(account) == Identity(account_id=account)


# account, settings, reason
REJECTED: dict[str, tuple[str, dict[str, Any], FailureReason]] = {
    "the refused account": ("nobody", {}, FailureReason.CREDENTIAL_UNKNOWN),
    "another refused account": (
        "mallory",
        {"refused_account": "mallory"},
        FailureReason.CREDENTIAL_UNKNOWN,
    ),
    "an empty account": ("", {"refused_account": "nobody"}, FailureReason.IDENTITY_INVALID),
    "an invalid account": ("a\nb", {}, FailureReason.IDENTITY_INVALID),
}


@pytest.mark.parametrize(("account", "settings", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejects(account: str, settings: dict[str, Any], reason: FailureReason) -> None:
    with pytest.raises(VerificationFailed) as raised:
        verify(account, **settings)
    assert raised.value.reason is reason
