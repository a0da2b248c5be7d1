"""The signed JWT: a token of the operator, signed with a private key that AGS never sees."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from partner_jwt.settings import PartnerJWTSettings
from providers.key_set import KeySet, KeySetReader, entered, prove_by
from rest_framework import serializers

from providers.claims import account, audiences, demand_issuer, demand_no_events, expiry, identity, jti
from providers.contract import Endpoint, Example, Finding, Identity, KeyRing, Parameter, Strategy
from providers.jose import FOREIGN_KID, Proven, prove
from providers.upstream import Document, Source, document


class PartnerJWTParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    Token = Parameter(description="A JWT over the account, signed with a private key of the operator.")


class PartnerJWT(Strategy):
    """Verifies a JWT of the operator."""

    slug = "partner_jwt"
    label = "Signed JWT (with a private key of the operator)"
    endpoints = (
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    Parameters = PartnerJWTParameters
    Settings = PartnerJWTSettings
    example = Example(
        settings={
            "key_set_address": "https://{upstream}/keys",
            "issuer": "https://login.operator.example",
            "audience": "ags",
        },
        parameters={"Token": "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.AAAA"},
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account that the token names, once all that the settings demand of it holds."""
        now = time.time()
        proven = _proven(parameters["Token"], settings, keys.tenant, now)
        claims = proven.claims
        demand_no_events(claims)
        demand_issuer(claims, settings["issuer"])
        audiences(claims, settings["audience"])
        expires = expiry(claims, settings, now)
        account_id = account(claims, settings, keys.tenant)
        return identity(account_id, None, jti(claims, settings["replay"]), expires)

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        """Fetch the key set, if there is one to be fetched."""
        if settings["keys_from"] == "address":
            _document(settings, keys.tenant).prepare()

    def documents(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        """Return the address of the key set, if it has one."""
        return {"key set": settings["key_set_address"]} if settings["keys_from"] == "address" else {}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[Finding]:
        """Say which keys there are."""
        if settings["keys_from"] == "entered":
            return _entered(settings, keys.tenant).findings("What is entered")
        host = urlsplit(settings["key_set_address"]).netloc
        return _document(settings, keys.tenant).fetch_now().findings(f"The key set at {host}")


def _proven(token: str, settings: Mapping[str, Any], tenant: str, now: float) -> Proven:
    media_type = settings["header_type"]
    if settings["keys_from"] == "entered":
        return prove(token, _entered(settings, tenant).ring, now, kids=FOREIGN_KID, media_type=media_type)
    return prove_by(_document(settings, tenant), token, now, settings["deadline"], media_type=media_type)


def _entered(settings: Mapping[str, Any], tenant: str) -> KeySet:
    return entered(tenant, settings["public_keys"], settings["key_id"], tuple(settings["algorithms"]))


def _document(settings: Mapping[str, Any], tenant: str) -> Document[KeySet]:
    source = Source(tenant, settings["key_set_address"], settings["deadline"], settings["ca_certificates"])
    return document(source, KeySetReader(tenant, tuple(settings["algorithms"])))
