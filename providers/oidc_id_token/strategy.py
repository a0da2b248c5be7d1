"""The ID token of an OpenID provider."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rest_framework import serializers

from providers.claims import (
    account,
    audiences,
    check_issuer,
    check_no_events,
    check_times,
    identity,
    jti,
    numeric_date,
    require,
    string,
)
from providers.contract import (
    CheckResult,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Strategy,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.jose import VerifiedJWS
from providers.jwks import verify_with_jwks
from providers.oidc_id_token.discovery import address_of, discovery
from providers.oidc_id_token.settings import OIDCIDTokenSettings


class OIDCIDTokenParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    IdToken = Parameter(description="An ID token of the operator's OpenID provider.")
    Nonce = Parameter(
        description="The nonce with which the ID token was asked for.", max_length=255, required=False
    )


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
    Parameters = OIDCIDTokenParameters
    Settings = OIDCIDTokenSettings
    example = Example(
        settings={"issuer": "https://{upstream}", "client_id": "television"},
        parameters={"IdToken": "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.AAAA", "Nonce": "n-0S6_WzA2Mj"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account of a valid ID token."""
        now = time.time()
        claims = _proven(parameters["IdToken"], settings, keys.tenant, now).claims
        check_no_events(claims)
        check_issuer(claims, settings["issuer"])
        _check_party(claims, settings)
        expires = check_times(claims, settings, now)
        _check_age(claims, settings, now)
        _check_nonce(claims, parameters.get("Nonce"), settings["nonce"])
        account_id = account(claims, settings, keys.tenant)
        return identity(account_id, None, _once(claims, settings["replay"]), expires)

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        """Start to fetch the discovery document, and then the JWK Set."""
        discovery(settings, keys.tenant).prepare()

    def document_urls(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        """Return the URLs of both. That of the JWK Set is known when the discovery document is."""
        known = {"discovery document": address_of(settings)}
        try:
            key_set = discovery(settings, keys.tenant).current(wait=0.0)
        except UpstreamUnavailable:
            return known
        return {**known, "key set": key_set.source.url}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        """Fetch the discovery document and the JWK Set."""
        key_set = discovery(settings, keys.tenant).fetch_now()
        yield CheckResult(True, f"The discovery document is that of {settings['issuer']}.")
        yield from key_set.fetch_now().findings(f"The key set at {urlsplit(key_set.source.url).netloc}")


def _proven(token: str, settings: Mapping[str, Any], tenant: str, now: float) -> VerifiedJWS:
    ends = time.monotonic() + settings["deadline"]
    key_set = discovery(settings, tenant).current(settings["deadline"])
    left = max(ends - time.monotonic(), 0.0)
    return verify_with_jwks(key_set, token, now, left)


def _check_party(claims: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Require that the token is for our client, and names no client that is not trusted.

    OpenID Connect Core, section 3.1.3.7, steps 3 to 5.
    """
    trusted = {settings["client_id"], *settings["trusted_clients"].splitlines()}
    listed = audiences(claims, settings["client_id"])
    if not trusted.issuperset(listed):
        raise VerificationFailed(FailureReason.AUDIENCE_MISMATCH, "aud")
    if (len(listed) > 1 or "azp" in claims) and string(claims, "azp") not in trusted:
        raise VerificationFailed(FailureReason.AUTHORIZED_PARTY_MISMATCH, "azp")


def _check_age(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> None:
    """Require a recent `iat` (step 10)."""
    issued, longest = numeric_date(claims, "iat"), settings["max_age"]
    if longest is not None and issued + longest + settings["clock_skew"] <= now:
        raise VerificationFailed(FailureReason.TOKEN_EXPIRED, "iat")


def _check_nonce(claims: Mapping[str, Any], given: str | None, rule: str) -> None:
    """Require the nonce that the caller presents (step 11)."""
    if rule == "off" or (rule == "if_given" and given is None):
        return
    if given is None or require(claims, "nonce") != given:
        raise VerificationFailed(FailureReason.NONCE_MISMATCH, "nonce")


def _once(claims: Mapping[str, Any], replay: str) -> str | None:
    """Return what identifies the token, to accept it once: its `jti`, or else its `nonce`."""
    if replay == "off" or "jti" in claims or "nonce" not in claims:
        return jti(claims, replay)
    # A hash limits the length of a nonce, and cannot be the jti of another token.
    return f"nonce {hashlib.sha256(string(claims, 'nonce').encode()).hexdigest()}"
