"""The signed JWT strategy: a JWT signed with a private key of the operator."""

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
)
from providers.contract import (
    CheckResult,
    Endpoint,
    Example,
    Identity,
    KeyKind,
    KeyRing,
    Parameter,
    Step,
    Strategy,
    current_time,
)
from providers.jose import EXTERNAL_KID, STEPS, VerifiedJWS, verify_jws
from providers.jwks import JWKSet, JWKSetReader, parse_static_keys, verify_with_jwks
from providers.signed_jwt.settings import SignedJWTSettings
from providers.upstream import Document, Source, document


class SignedJWTParameters(serializers.Serializer[Any]):
    Token = Parameter(description="A JWT with the account, signed with a private key of the operator.")


class SignedJWT(Strategy):
    slug = "signed_jwt"
    label = "Signed JWT (with a private key of the operator)"
    endpoints = (
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    uses_keys = True
    uses_keys_if = {"keys_from": "tenant"}
    key_kind = KeyKind.PUBLIC_KEY
    steps = (
        Step.UPSTREAM,
        *STEPS,
        Step.TYPE,
        Step.ISSUER,
        Step.AUDIENCE,
        Step.TIMES,
        Step.CLAIMS,
        Step.REPLAY,
    )
    Parameters = SignedJWTParameters
    Settings = SignedJWTSettings
    example = Example(
        settings={
            "key_set_address": "https://{upstream}/keys",
            "issuer": "https://login.operator.example",
            "audience": "ags",
        },
        parameters={"Token": "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.AAAA"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        now = current_time()
        verified = _verify_token(parameters["Token"], settings, keys, now)
        claims = verified.claims
        check_no_events(claims)
        check_issuer(claims, settings["issuer"])
        audiences(claims, settings["audience"])
        expires = check_times(claims, settings, now)
        account_id = get_account_id(claims, settings, keys.tenant)
        return create_identity(account_id, verified.key.id, jti(claims, settings["replay"]), expires)

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        if settings["keys_from"] == "address":
            _document(settings, keys.tenant).prepare()

    def document_urls(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        return {"JWK Set": settings["key_set_address"]} if settings["keys_from"] == "address" else {}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        if settings["keys_from"] == "entered":
            return _static_keys(settings, keys.tenant).check_results("The setting public_keys")
        if settings["keys_from"] == "tenant":
            return _check_keys_of_tenant(keys)
        host = urlsplit(settings["key_set_address"]).netloc
        return _document(settings, keys.tenant).fetch_now().check_results(f"The JWK Set at {host}")


def _check_keys_of_tenant(keys: KeyRing) -> Iterable[CheckResult]:
    if kids := keys.kids_in_force(current_time()):
        yield CheckResult(True, f"Keys in force: {', '.join(kids)}.")
    else:
        yield CheckResult(False, "The tenant has no public key in force, so no token can be accepted.")


def _verify_token(token: str, settings: Mapping[str, Any], keys: KeyRing, now: float) -> VerifiedJWS:
    media_type = settings["header_type"]
    if settings["keys_from"] == "tenant":
        return verify_jws(token, keys, now, media_type=media_type)
    if settings["keys_from"] == "entered":
        entered = _static_keys(settings, keys.tenant).key_ring
        return verify_jws(token, entered, now, kid_pattern=EXTERNAL_KID, media_type=media_type)
    jwks = _document(settings, keys.tenant)
    return verify_with_jwks(jwks, token, now, settings["deadline"], media_type=media_type)


def _static_keys(settings: Mapping[str, Any], tenant: str) -> JWKSet:
    algorithms = tuple(settings["algorithms"])
    return parse_static_keys(tenant, settings["public_keys"], settings["key_id"], algorithms)


def _document(settings: Mapping[str, Any], tenant: str) -> Document[JWKSet]:
    source = Source(tenant, settings["key_set_address"], settings["deadline"], settings["ca_certificates"])
    return document(source, JWKSetReader(tenant, tuple(settings["algorithms"])))
