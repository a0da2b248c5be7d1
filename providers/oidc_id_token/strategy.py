"""The OpenID Connect strategy: an ID token of the operator's OpenID provider."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rest_framework import serializers

from providers.claims import (
    audiences,
    check_issuer,
    check_no_events,
    check_times,
    create_identity,
    get_account_id,
    jti,
    numeric_date,
    require,
    string,
    time_facts,
)
from providers.contract import (
    CheckResult,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Step,
    Strategy,
    UpstreamUnavailable,
    VerificationFailed,
    current_time,
)
from providers.jose import STEPS, VerifiedJWS
from providers.jwks import verify_with_jwks
from providers.oidc_id_token.discovery import discovery_document, discovery_url
from providers.oidc_id_token.settings import OIDCIDTokenSettings


class OIDCIDTokenParameters(serializers.Serializer[Any]):
    IdToken = Parameter(description="An ID token of the operator's OpenID provider.")
    Nonce = Parameter(description="The nonce of the authentication request.", max_length=255, required=False)


class OIDCIDToken(Strategy):
    """Verifies an ID token (OpenID Connect Core, section 3.1.3.7)."""

    slug = "oidc_id_token"
    label = "OpenID Connect ID token"
    endpoints = (
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    steps = (
        Step.UPSTREAM,
        *STEPS,
        Step.TYPE,
        Step.ISSUER,
        Step.AUDIENCE,
        Step.TIMES,
        Step.NONCE,
        Step.CLAIMS,
        Step.REPLAY,
    )
    Parameters = OIDCIDTokenParameters
    Settings = OIDCIDTokenSettings
    example = Example(
        settings={"issuer": "https://{upstream}", "client_id": "television"},
        parameters={"IdToken": "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.AAAA", "Nonce": "n-0S6_WzA2Mj"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        now = current_time()
        claims = _verify_token(parameters["IdToken"], settings, keys.tenant, now).claims
        check_no_events(claims)
        check_issuer(claims, settings["issuer"])
        _check_party(claims, settings)
        expires = check_times(claims, settings, now)
        _check_age(claims, settings, now)
        _check_nonce(claims, parameters.get("Nonce"), settings["nonce"])
        account_id = get_account_id(claims, settings, keys.tenant)
        return create_identity(account_id, None, _replay_id(claims, settings["replay"]), expires)

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        discovery_document(settings, keys.tenant).prepare()

    def document_urls(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        urls = {"discovery document": discovery_url(settings)}
        try:
            jwks = discovery_document(settings, keys.tenant).current(wait=0.0)
        except UpstreamUnavailable:
            return urls
        return {**urls, "JWK Set": jwks.source.url}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        jwks = discovery_document(settings, keys.tenant).fetch_now()
        yield CheckResult(True, f"The discovery document of {settings['issuer']} is valid.")
        yield from jwks.fetch_now().check_results(f"The JWK Set at {urlsplit(jwks.source.url).netloc}")


def _verify_token(token: str, settings: Mapping[str, Any], tenant: str, now: float) -> VerifiedJWS:
    ends_at = time.monotonic() + settings["deadline"]
    jwks = discovery_document(settings, tenant).current(settings["deadline"])
    return verify_with_jwks(jwks, token, now, max(ends_at - time.monotonic(), 0.0))


def _check_party(claims: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check `aud` and `azp` (OpenID Connect Core, section 3.1.3.7, steps 3 to 5)."""
    trusted = {settings["client_id"], *settings["trusted_clients"].splitlines()}
    audience = audiences(claims, settings["client_id"])
    if not trusted.issuperset(audience):
        raise VerificationFailed(
            FailureReason.AUDIENCE_MISMATCH, "aud", audience=audience, expected=settings["client_id"]
        )
    if (len(audience) > 1 or "azp" in claims) and string(claims, "azp") not in trusted:
        raise VerificationFailed(FailureReason.AUTHORIZED_PARTY_MISMATCH, "azp")


def _check_age(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> None:
    """Check `iat` (step 10)."""
    issued_at, max_age = numeric_date(claims, "iat"), settings["max_age"]
    if max_age is not None and issued_at + max_age + settings["clock_skew"] <= now:
        facts = time_facts(claims, settings, now)
        raise VerificationFailed(FailureReason.TOKEN_EXPIRED, "iat", max_age=max_age, **facts)


def _check_nonce(claims: Mapping[str, Any], nonce: str | None, rule: str) -> None:
    """Check `nonce` (step 11)."""
    if rule == "off" or (rule == "if_given" and nonce is None):
        return
    if nonce is None or require(claims, "nonce") != nonce:
        raise VerificationFailed(FailureReason.NONCE_MISMATCH, "nonce")


def _replay_id(claims: Mapping[str, Any], replay: str) -> str | None:
    """Return the ID by which the token is accepted once: its `jti`, or else a hash of its `nonce`."""
    if replay == "off" or "jti" in claims or "nonce" not in claims:
        return jti(claims, replay)
    # The hash limits the length. The prefix distinguishes it from a jti.
    return f"nonce {hashlib.sha256(string(claims, 'nonce').encode()).hexdigest()}"
