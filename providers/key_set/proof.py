"""Proving a token by a key set that is fetched: a key that has just been published is looked for once."""

from __future__ import annotations

import time
from typing import Any

from providers.contract import FailureReason, VerificationFailed
from providers.jose import FOREIGN_KID, Proven, prove
from providers.key_set.key_set import KeySet
from providers.upstream import Document


def prove_by(document: Document[KeySet], token: str, now: float, deadline: float, **rules: Any) -> Proven:
    """Return what `prove` does with the ring of that document, within `deadline` seconds.

    Where its `kid` is unknown, the document is asked for anew, if it was not within the gap, and the token
    tried once more. Raises `VerificationFailed` and `UpstreamUnavailable`.
    """
    ends = time.monotonic() + deadline
    keys = document.current(deadline)
    try:
        return prove(token, keys.ring, now, kids=FOREIGN_KID, **rules)
    except VerificationFailed as refused:
        if refused.reason is not FailureReason.KEY_UNKNOWN:
            raise
        newer = document.newer(keys, max(ends - time.monotonic(), 0.0))
        if newer is keys:
            raise
    return prove(token, newer.ring, now, kids=FOREIGN_KID, **rules)
