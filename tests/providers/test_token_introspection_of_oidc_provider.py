"""The provider `token_introspection` with the authorization server `oidc-provider`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.contract import FailureReason, Identity, UpstreamFailure, UpstreamUnavailable
from providers.token_introspection.strategy import TokenIntrospection
from tests.support.token_introspection import RING, cleaned, get_reason, verify
from tests.support.upstream.oidc_provider import OidcProvider


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as running:
        yield running


def settings_at(
    provider: OidcProvider, method: str = "client_secret_basic", **settings: Any
) -> dict[str, Any]:
    """Return the settings of a service that uses this authorization server."""
    return {
        "address": provider.introspection,
        "client_id": provider.resource_server(method),
        "client_secret": provider.secret,
        "client_authentication": method,
        **settings,
    }


# arguments of the access token, settings of the service
ACCEPTED_BY_OIDC_PROVIDER = {
    "any": ({}, {}),
    "with client_secret_post": ({}, {"method": "client_secret_post"}),
    "without a hint": ({}, {"token_type_hint": ""}),
    "of an audience": ({"audience": "ags"}, {"audience": "ags"}),
    "of scopes": ({"scope": "openid tv"}, {"scope": "tv"}),
    "of all scopes": ({"scope": "openid tv"}, {"scope": " tv  openid "}),
    "of a tenant": ({"claims": {"operator": "nagra"}}, {"tenant_member": "operator"}),
    "of an account elsewhere": ({"claims": {"house": "account-1"}}, {"account_member": "house"}),
}

REJECTED_BY_OIDC_PROVIDER = {
    "of another audience": ({"audience": "tv"}, {"audience": "ags"}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "of no audience": ({}, {"audience": "ags"}, FailureReason.CLAIM_MISSING, "aud"),
    "of another scope": ({"scope": "openid"}, {"scope": "tv"}, FailureReason.CLAIM_MISMATCH, "scope"),
    "of no scope": ({}, {"scope": "tv"}, FailureReason.CLAIM_MISSING, "scope"),
    "of another tenant": (
        {"claims": {"operator": "sunrise"}},
        {"tenant_member": "operator"},
        FailureReason.TENANT_MISMATCH,
        "operator",
    ),
    "of another issuer": ({}, {"issuer": "https://other.example"}, FailureReason.ISSUER_MISMATCH, "iss"),
    "without such an account": ({}, {"account_member": "house"}, FailureReason.CLAIM_MISSING, "house"),
}


@pytest.mark.parametrize(
    ("token", "rules"), ACCEPTED_BY_OIDC_PROVIDER.values(), ids=ACCEPTED_BY_OIDC_PROVIDER
)
def test_an_access_token_of_oidc_provider_is_accepted(
    provider: OidcProvider, token: dict[str, Any], rules: dict[str, Any]
) -> None:
    access_token = provider.access_token("account-1", **token)
    identity = verify(access_token, **settings_at(provider, issuer=provider.issuer, **rules))
    assert identity == Identity("account-1")


@pytest.mark.parametrize(
    ("token", "rules", "expected", "claim"),
    REJECTED_BY_OIDC_PROVIDER.values(),
    ids=REJECTED_BY_OIDC_PROVIDER,
)
def test_an_access_token_of_oidc_provider_is_rejected(
    provider: OidcProvider,
    token: dict[str, Any],
    rules: dict[str, Any],
    expected: FailureReason,
    claim: str,
) -> None:
    access_token = provider.access_token("account-1", **token)
    assert get_reason(access_token, **settings_at(provider, **rules)) == (expected, claim)


def test_expired_revoked_and_unknown_tokens_are_inactive(provider: OidcProvider) -> None:
    settings = settings_at(provider)
    brief, revoked = provider.access_token("account-1", expires_in=600), provider.access_token("account-1")
    assert verify(revoked, **settings) == Identity("account-1")
    provider.revoke(revoked)
    assert get_reason(revoked, **settings)[0] is FailureReason.TOKEN_INACTIVE
    assert get_reason("never-issued", **settings)[0] is FailureReason.TOKEN_INACTIVE
    assert verify(brief, **settings) == Identity("account-1")
    with provider.clock_ahead(601):
        assert get_reason(brief, **settings)[0] is FailureReason.TOKEN_INACTIVE


def test_an_id_token_is_inactive(provider: OidcProvider) -> None:
    assert (
        get_reason(provider.id_token("account-1"), **settings_at(provider))[0] is FailureReason.TOKEN_INACTIVE
    )


def test_oidc_provider_rejects_wrong_credentials(provider: OidcProvider) -> None:
    for wrong in ({"client_secret": "other"}, {"client_id": "nobody"}):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("anything", **settings_at(provider) | wrong)
        assert raised.value.failure is UpstreamFailure.CREDENTIALS_REJECTED


def test_check_against_oidc_provider(provider: OidcProvider) -> None:
    results = list(TokenIntrospection().check(cleaned(**settings_at(provider, audience="ags")), RING))
    (result,) = results
    assert result.passed
    assert "active=false" in result.message
    with pytest.raises(UpstreamUnavailable, match="rejects the credentials"):
        list(TokenIntrospection().check(cleaned(**settings_at(provider, client_secret="other")), RING))
