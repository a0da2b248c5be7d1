"""Tokens of operators."""

from __future__ import annotations

import json
import time
from typing import Any

from providers.contract import KeyRing, TrustedKey
from tests.support.confused_tokens import ALGORITHMS, KEY_SET
from tests.support.upstream.signer import apply_changes

SEED_SAMPLE = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjcwNjQ2OTQ4LWQ2ZmItNGNlOC1hNDMzLTUyYTE0ZWUyZmEwYSJ9."
    "eyJ0eXAiOiJHZXRTZXNzaW9uVG9rZW5BdXRoTiIsIk9wZkFjY291bnRJZCI6IlNlc3Npb25Ub2tlblNpZ25PbkFjY291bnQtMDAwMSIs"
    "Ik9wZlRlbmFudElkIjoibmFncmEiLCJleHAiOjE3MzUwODQ4MDAsImF1ZCI6ImFncyJ9."
    "yMwK-RJLh_nUeJPuoVtrfP8ol-sRuvO4dsy0QmRNzS8"
)

ISSUER = "https://login.operator.example"

RING = KeyRing("nagra", {"k": TrustedKey(7, "k", "HS256", bytes(range(32)))})
ENTERED = {
    "keys_from": "entered",
    "public_keys": json.dumps(KEY_SET),
    "algorithms": ALGORITHMS,
    "issuer": ISSUER,
    "audience": "ags",
}


def make_claims(**changes: Any) -> dict[str, Any]:
    valid = {"iss": ISSUER, "aud": "ags", "sub": "account-1", "exp": int(time.time()) + 300}
    return apply_changes(valid, changes)
