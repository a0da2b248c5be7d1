"""ID tokens that another program has made: node's `oidc-provider`, found by its own discovery document."""

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
from tests.conftest import HeadEnd
from tests.providers.conftest import Clock
from tests.upstream.authority import authority
from tests.upstream.deadlines import LONG, LONGEST
from tests.upstream.oidc_provider import OidcProvider

RING = KeyRing("nagra", {})


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as running:
        yield running


def stored(provider: OidcProvider, algorithm: str = "RS256", **changes: Any) -> dict[str, Any]:
    good = {
        "issuer": provider.issuer,
        "client_id": provider.client_id(algorithm),
        "algorithms": [algorithm],
        "ca_certificates": authority().certificate,
        "deadline": LONGEST,
    }
    return good | changes


def settings_of(provider: OidcProvider, algorithm: str = "RS256", **changes: Any) -> Mapping[str, Any]:
    return {**clean_settings(OIDCIDToken(), stored(provider, algorithm, **changes))[1], "deadline": LONG}


def verify(made: str, settings: Mapping[str, Any], nonce: str = "n") -> Identity:
    return OIDCIDToken().verify({"IdToken": made, "Nonce": nonce}, settings, RING)


def why(made: str, settings: Mapping[str, Any], nonce: str = "n") -> FailureReason:
    with pytest.raises(VerificationFailed) as refused:
        verify(made, settings, nonce)
    return refused.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_its_id_token_proves_the_subscriber(provider: OidcProvider, algorithm: str) -> None:
    made = provider.id_token("account-1", algorithm=algorithm, nonce="n")
    assert verify(made, settings_of(provider, algorithm)).account_id == "account-1"


def test_what_it_says_otherwise_is_refused(provider: OidcProvider) -> None:
    settings = settings_of(provider)
    made = provider.id_token("account-1", nonce="n")
    assert why(made, settings, "another") is FailureReason.NONCE_MISMATCH
    assert why(provider.id_token("account-1"), settings) is FailureReason.CLAIM_MISSING
    assert why(made, settings_of(provider, client_id="another")) is FailureReason.AUDIENCE_MISMATCH
    assert why(made, settings_of(provider, "ES256")) is FailureReason.KEY_UNKNOWN
    others = provider.id_token("account-1", nonce="n", claims={"azp": "another"})
    assert why(others, settings) is FailureReason.AUTHORIZED_PARTY_MISMATCH
    assert verify(others, settings_of(provider, trusted_clients="another"))
    other_tenant = provider.id_token("account-1", nonce="n", claims={"tenant": "sunrise"})
    assert why(other_tenant, settings_of(provider, tenant_claim="tenant")) is FailureReason.TENANT_MISMATCH
    with provider.clock_ahead(-60):
        brief = provider.id_token("account-1", nonce="n", expires_in=1)
    assert why(brief, settings_of(provider)) is FailureReason.TOKEN_EXPIRED


def test_its_access_token_is_no_id_token(provider: OidcProvider) -> None:
    assert (
        why(provider.access_token("account-1", scope="openid"), settings_of(provider))
        is FailureReason.MALFORMED
    )


def test_an_id_token_is_nothing_where_access_tokens_are_wanted(provider: OidcProvider) -> None:
    given = stored(provider)
    client = given.pop("client_id")
    keys = {"key_set_address": f"{provider.issuer}/jwks", "audience": client}
    made = provider.id_token("account-1", nonce="n")
    any_jwt = {**clean_settings(SignedJWT(), given | keys)[1], "deadline": LONG}
    assert SignedJWT().verify({"Token": made}, any_jwt, RING).account_id == "account-1"
    access = {**any_jwt, "header_type": "at+jwt"}
    with pytest.raises(VerificationFailed) as refused:
        SignedJWT().verify({"Token": made}, access, RING)
    assert refused.value.reason is FailureReason.MALFORMED


def test_it_rotates_its_keys_and_withdraws_those_before(provider: OidcProvider, clock: Clock) -> None:
    settings = settings_of(provider)
    before = provider.id_token("account-1", nonce="n")
    assert verify(before, settings)
    provider.rotate(keep=True)
    after = provider.id_token("account-1", nonce="n")
    assert why(after, settings) is FailureReason.KEY_UNKNOWN, "not within the gap"
    clock.ahead += documents.GAP + 1
    assert verify(after, settings)
    assert verify(before, settings)
    provider.rotate(keep=False)
    clock.ahead += documents.FRESH_FOR + 1
    assert why(before, settings) is FailureReason.KEY_UNKNOWN


def test_check_names_its_keys(provider: OidcProvider) -> None:
    discovery, used, unused = OIDCIDToken().check(settings_of(provider), RING)
    assert provider.issuer in discovery.message
    assert "usable key" in used.message
    assert "(RS256)" in used.message
    assert "for none of the algorithms that the service allows" in unused.message


def test_a_head_end_gets_a_session_token_for_it_once(provider: OidcProvider, nagra: HeadEnd) -> None:
    service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
    service.enabled, service.settings = True, stored(provider)
    service.save()
    made = provider.id_token("account-1", nonce="once")
    body = {"parameters": [{"name": "IdToken", "value": made}, {"name": "Nonce", "value": "once"}]}
    assert nagra.post(body, x_auth_service_id="OIDC").status_code == 200
    again = nagra.post(body, x_auth_service_id="OIDC")
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
