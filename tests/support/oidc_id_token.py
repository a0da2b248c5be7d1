"""The provider `oidc_id_token`: settings, claims and documents."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from providers.contract import Identity, KeyRing, TrustedKey, UpstreamUnavailable, VerificationFailed
from providers.oidc_id_token.strategy import OIDCIDToken
from tenants.services.settings import clean_settings
from tests.support.confused_tokens import ALGORITHMS
from tests.support.upstream.deadlines import LONG
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import apply_changes

RING = KeyRing("nagra", {"k": TrustedKey(7, "k", "HS256", bytes(range(32)))})
WELL_KNOWN = "/.well-known/openid-configuration"


def discovery(server: HTTPSServer, **changes: Any) -> Reply:
    valid = {
        "issuer": server.url,
        "jwks_uri": f"{server.url}/keys",
        "id_token_signing_alg_values_supported": ["none", "HS256"],
        "anything": {"else": []},
    }
    return as_json(apply_changes(valid, changes))


def get_settings(server: HTTPSServer, deadline: float = LONG, **changes: Any) -> Mapping[str, Any]:
    valid = {
        "issuer": server.url,
        "client_id": "television",
        "algorithms": ALGORITHMS,
        **server.settings,
    }
    return {**clean_settings(OIDCIDToken(), valid | changes)[1], "deadline": deadline}


def make_claims(server: HTTPSServer, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    valid = {
        "iss": server.url,
        "aud": "television",
        "sub": "account-1",
        "iat": now,
        "exp": now + 300,
        "nonce": "n",
    }
    return apply_changes(valid, changes)


def verify(jws: str, settings: Mapping[str, Any], nonce: str | None = "n") -> Identity:
    parameters = {"IdToken": jws} | ({} if nonce is None else {"Nonce": nonce})
    return OIDCIDToken().verify(parameters, settings, RING)


def get_failure(jws: str, settings: Mapping[str, Any], nonce: str | None = "n") -> tuple[Any, Any]:
    with pytest.raises((VerificationFailed, UpstreamUnavailable)) as raised:
        verify(jws, settings, nonce)
    if isinstance(raised.value, VerificationFailed):
        return raised.value.reason, raised.value.claim
    assert isinstance(raised.value, UpstreamUnavailable)
    return raised.value.failure, None
