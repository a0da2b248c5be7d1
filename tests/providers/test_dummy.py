"""The dummy believes what it is told, but for the account that it is told to refuse."""

from __future__ import annotations

from typing import Any

import pytest

from providers.contract import FailureReason, Identity, KeyRing, VerificationFailed
from providers.dummy.strategy import Dummy
from tests.providers.offered import cleaned


def verify(account: str, **settings: Any) -> Any:
    return Dummy().verify({"Account": account}, {**cleaned(Dummy()), **settings}, KeyRing("nagra", {}))


@pytest.mark.parametrize("account", ["account-1", "Ünïcode", "x" * 255])
def test_it_accepts(account: str) -> None:
    assert verify(account) == Identity(account_id=account)


# account, settings, why
REFUSED: dict[str, tuple[str, dict[str, Any], FailureReason]] = {
    "the account to refuse": ("nobody", {}, FailureReason.CREDENTIAL_UNKNOWN),
    "another one that staff name": (
        "mallory",
        {"refused_account": "mallory"},
        FailureReason.CREDENTIAL_UNKNOWN,
    ),
    "no account": ("", {"refused_account": "nobody"}, FailureReason.IDENTITY_INVALID),
    "what is no account": ("a\nb", {}, FailureReason.IDENTITY_INVALID),
}


@pytest.mark.parametrize(("account", "settings", "refusal"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(account: str, settings: dict[str, Any], refusal: FailureReason) -> None:
    with pytest.raises(VerificationFailed) as refused:
        verify(account, **settings)
    assert refused.value.reason is refusal
