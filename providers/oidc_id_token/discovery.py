"""The discovery document of an issuer (OpenID Connect Discovery, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from providers.contract import HTTPSField, UpstreamFailure, UpstreamUnavailable
from providers.jwks import JWKSet, JWKSetReader
from providers.strict_json import NotStrictJSON, parse
from providers.upstream import Document, Source, document

_DEPTH = 8


@dataclass(frozen=True, slots=True)
class DiscoveryReader:
    """Parses a discovery document into the JWK Set at its `jwks_uri`, and starts to fetch that."""

    tenant: str
    issuer: str
    algorithms: tuple[str, ...]
    deadline: float
    ca_certificates: str = field(repr=False)

    def __call__(self, raw: bytes) -> Document[JWKSet]:
        """Return the document of the JWK Set. Raises `UpstreamUnavailable(RESPONSE_INVALID)`."""
        try:
            told = parse(raw, _DEPTH)
        except NotStrictJSON as flaw:
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, f"its discovery document is malformed: {flaw}"
            ) from None
        if not isinstance(told, dict) or told.get("issuer") != self.issuer:
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, "its discovery document is not that of the issuer"
            )
        try:
            address = HTTPSField().clean(told.get("jwks_uri"))
        except ValidationError:
            raise UpstreamUnavailable(
                UpstreamFailure.RESPONSE_INVALID, "its discovery document has no https jwks_uri"
            ) from None
        source = Source(self.tenant, address, self.deadline, self.ca_certificates)
        keys = document(source, JWKSetReader(self.tenant, self.algorithms))
        keys.prepare()
        return keys


def address_of(settings: Mapping[str, Any]) -> str:
    """Return the URL of the discovery document."""
    return f"{settings['issuer'].removesuffix('/')}/.well-known/openid-configuration"


def discovery(settings: Mapping[str, Any], tenant: str) -> Document[Document[JWKSet]]:
    """Return the discovery document of a service."""
    deadline, authorities = settings["deadline"], settings["ca_certificates"]
    reader = DiscoveryReader(tenant, settings["issuer"], tuple(settings["algorithms"]), deadline, authorities)
    return document(Source(tenant, address_of(settings), deadline, authorities), reader)
