"""The claims of an identity: which are valid."""

from __future__ import annotations

import math
from typing import Any

import pytest

from providers.contract import FailureReason, Identity, VerificationFailed

VALID: dict[str, dict[str, Any]] = {
    "none": {},
    "each type": {"text": "Ünïcode", "empty": "", "int": -1, "float": 1.5, "bool": True, "null": None},
    "as many as allowed": {f"claim-{number}": number for number in range(16)},
    "as long as allowed": {"n" * 64: "v" * 255},
    "as large as allowed": {"int": 2**53 - 1},
}


@pytest.mark.parametrize("claims", VALID.values(), ids=VALID)
def test_valid_claims(claims: dict[str, Any]) -> None:
    identity = Identity("account-1", claims=claims)
    assert identity.claims == claims
    assert hash(identity) == hash(Identity("account-1"))


INVALID: dict[str, Any] = {
    "too many": {f"claim-{number}": number for number in range(17)},
    "a long name": {"n" * 65: "v"},
    "an empty name": {"": "v"},
    "a name with a control character": {"a\nb": "v"},
    "a name that is a number": {1: "v"},
    "a long text": {"n": "v" * 256},
    "a text with a control character": {"n": "\0"},
    "a lone surrogate": {"n": "\ud800"},
    "a large integer": {"n": 2**53},
    "NaN": {"n": math.nan},
    "infinity": {"n": math.inf},
    "bytes": {"n": b"v"},
    "an array": {"n": ["v"]},
    "an object": {"n": {"n": "v"}},
    "not a mapping": [],
    "null": None,
}


@pytest.mark.parametrize("claims", INVALID.values(), ids=INVALID)
def test_invalid_claims(claims: Any) -> None:
    with pytest.raises(VerificationFailed) as failed:
        Identity("account-1", claims=claims)
    assert failed.value.reason is FailureReason.IDENTITY_INVALID
