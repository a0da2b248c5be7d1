"""Verification with a JWK Set from a URL. An unknown `kid` causes one refresh of the set."""

import time
from typing import Any

from providers.contract import FailureReason, VerificationFailed
from providers.jose import EXTERNAL_KID, VerifiedJWS, verify_jws
from providers.jwks.jwk_set import JWKSet
from providers.upstream import Document


def verify_with_jwks(
    document: Document[JWKSet], token: str, now: float, deadline: float, **rules: Any
) -> VerifiedJWS:
    """Return the result of `verify_jws` with the keys of the document, within `deadline` seconds.

    If the `kid` is unknown, refresh the document and retry once, unless it was fetched less than
    `MIN_FETCH_INTERVAL` seconds ago. Raises `VerificationFailed` and `UpstreamUnavailable`.
    """
    ends_at = time.monotonic() + deadline
    keys = document.current(deadline)
    try:
        return verify_jws(token, keys.key_ring, now, kid_pattern=EXTERNAL_KID, **rules)
    except VerificationFailed as error:
        if error.reason is not FailureReason.KEY_UNKNOWN:
            raise
        refreshed = document.refresh(keys, max(ends_at - time.monotonic(), 0.0))
        if refreshed is keys:
            raise
    return verify_jws(token, refreshed.key_ring, now, kid_pattern=EXTERNAL_KID, **rules)
