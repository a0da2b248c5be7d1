"""ID tokens issued by `oidc-provider` (Node.js), with its own discovery document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from providers.contract import FailureReason, Identity, KeyRing, VerificationFailed
from providers.oidc_id_token.strategy import OIDCIDToken
from providers.signed_jwt.strategy import SignedJWT
from providers.upstream import documents
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.support.clients import HeadEnd
from tests.support.clock import StoppedClock
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG, LONGEST
from tests.support.upstream.oidc_provider import OidcProvider

RING = KeyRing("nagra", {})


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as running:
        yield running


def stored(provider: OidcProvider, algorithm: str = "RS256", **changes: Any) -> dict[str, Any]:
    valid = {
        "issuer": provider.issuer,
        "client_id": provider.client_id(algorithm),
        "algorithms": [algorithm],
        "ca_certificates": authority().certificate,
        "deadline": LONGEST,
    }
    return valid | changes


def settings_of(provider: OidcProvider, algorithm: str = "RS256", **changes: Any) -> Mapping[str, Any]:
    return {**clean_settings(OIDCIDToken(), stored(provider, algorithm, **changes))[1], "deadline": LONG}


def verify(jws: str, settings: Mapping[str, Any], nonce: str = "n") -> Identity:
    return OIDCIDToken().verify({"IdToken": jws, "Nonce": nonce}, settings, RING)


def get_failure(jws: str, settings: Mapping[str, Any], nonce: str = "n") -> FailureReason:
    with pytest.raises(VerificationFailed) as raised:
        verify(jws, settings, nonce)
    return raised.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_valid_id_token_is_accepted(provider: OidcProvider, algorithm: str) -> None:
    jws = provider.id_token("account-1", algorithm=algorithm, nonce="n")
    assert verify(jws, settings_of(provider, algorithm)).account_id == "account-1"


def test_an_id_token_with_other_claims_is_rejected(provider: OidcProvider) -> None:
    settings = settings_of(provider)
    jws = provider.id_token("account-1", nonce="n")
    assert get_failure(jws, settings, "another") is FailureReason.NONCE_MISMATCH
    assert get_failure(provider.id_token("account-1"), settings) is FailureReason.CLAIM_MISSING
    assert get_failure(jws, settings_of(provider, client_id="another")) is FailureReason.AUDIENCE_MISMATCH
    assert get_failure(jws, settings_of(provider, "ES256")) is FailureReason.KEY_UNKNOWN
    others = provider.id_token("account-1", nonce="n", claims={"azp": "another"})
    assert get_failure(others, settings) is FailureReason.AUTHORIZED_PARTY_MISMATCH
    assert verify(others, settings_of(provider, trusted_clients="another"))
    other_tenant = provider.id_token("account-1", nonce="n", claims={"tenant": "sunrise"})
    assert (
        get_failure(other_tenant, settings_of(provider, tenant_claim="tenant"))
        is FailureReason.TENANT_MISMATCH
    )
    with provider.clock_ahead(-60):
        brief = provider.id_token("account-1", nonce="n", expires_in=1)
    assert get_failure(brief, settings_of(provider)) is FailureReason.TOKEN_EXPIRED


def test_an_access_token_is_rejected(provider: OidcProvider) -> None:
    assert (
        get_failure(provider.access_token("account-1", scope="openid"), settings_of(provider))
        is FailureReason.MALFORMED
    )


def test_an_id_token_is_rejected_if_access_tokens_are_required(provider: OidcProvider) -> None:
    given = stored(provider)
    client = given.pop("client_id")
    keys = {"key_set_address": f"{provider.issuer}/jwks", "audience": client}
    jws = provider.id_token("account-1", nonce="n")
    any_jwt = {**clean_settings(SignedJWT(), given | keys)[1], "deadline": LONG}
    assert SignedJWT().verify({"Token": jws}, any_jwt, RING).account_id == "account-1"
    access = {**any_jwt, "header_type": "at+jwt"}
    with pytest.raises(VerificationFailed) as raised:
        SignedJWT().verify({"Token": jws}, access, RING)
    assert raised.value.reason is FailureReason.MALFORMED


def test_rotated_keys_are_used_and_withdrawn_keys_are_not(
    provider: OidcProvider, clock: StoppedClock
) -> None:
    settings = settings_of(provider)
    before = provider.id_token("account-1", nonce="n")
    assert verify(before, settings)
    provider.rotate(keep=True)
    after = provider.id_token("account-1", nonce="n")
    assert get_failure(after, settings) is FailureReason.KEY_UNKNOWN, "fetched again within the interval"
    clock.ahead += documents.MIN_FETCH_INTERVAL + 1
    assert verify(after, settings)
    assert verify(before, settings)
    provider.rotate(keep=False)
    clock.ahead += documents.MAX_AGE + 1
    assert get_failure(before, settings) is FailureReason.KEY_UNKNOWN


def test_check_lists_the_keys(provider: OidcProvider) -> None:
    discovery, used, unused = OIDCIDToken().check(settings_of(provider), RING)
    assert provider.issuer in discovery.message
    assert "usable key" in used.message
    assert "(RS256)" in used.message
    assert "for none of the algorithms that the service allows" in unused.message


def test_an_id_token_is_exchanged_for_a_session_token_once(provider: OidcProvider, nagra: HeadEnd) -> None:
    service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
    service.enabled, service.settings = True, stored(provider)
    service.save()
    jws = provider.id_token("account-1", nonce="once")
    body = {"parameters": [{"name": "IdToken", "value": jws}, {"name": "Nonce", "value": "once"}]}
    assert nagra.post(body, x_auth_service_id="OIDC").status_code == 200
    again = nagra.post(body, x_auth_service_id="OIDC")
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
