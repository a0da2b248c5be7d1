"""Tokens of operators."""

from __future__ import annotations

import time
from typing import Any

from tests.support.upstream.signer import apply_changes

SEED_SAMPLE = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjcwNjQ2OTQ4LWQ2ZmItNGNlOC1hNDMzLTUyYTE0ZWUyZmEwYSJ9."
    "eyJ0eXAiOiJHZXRTZXNzaW9uVG9rZW5BdXRoTiIsIk9wZkFjY291bnRJZCI6IlNlc3Npb25Ub2tlblNpZ25PbkFjY291bnQtMDAwMSIs"
    "Ik9wZlRlbmFudElkIjoibmFncmEiLCJleHAiOjE3MzUwODQ4MDAsImF1ZCI6ImFncyJ9."
    "yMwK-RJLh_nUeJPuoVtrfP8ol-sRuvO4dsy0QmRNzS8"
)

ISSUER = "https://login.operator.example"


def make_claims(**changes: Any) -> dict[str, Any]:
    valid = {"iss": ISSUER, "aud": "ags", "sub": "account-1", "exp": int(time.time()) + 300}
    return apply_changes(valid, changes)
