"""The discovery document of an issuer (OpenID Connect Discovery, section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from providers.contract import HTTPSField
from providers.jwks import JWKSet, JWKSetReader
from providers.strict_json import NotStrictJSON, parse
from providers.upstream import Document, Source, document
from providers.upstream.response import DEPTH, invalid_response


@dataclass(frozen=True, slots=True)
class DiscoveryReader:
    """Parses a discovery document, and starts to fetch the JWK Set. Raises `UpstreamUnavailable`."""

    tenant: str
    issuer: str
    algorithms: tuple[str, ...]
    deadline: float
    ca_certificates: str = field(repr=False)

    def __call__(self, raw: bytes) -> Document[JWKSet]:
        try:
            metadata = parse(raw, DEPTH)
        except NotStrictJSON as error:
            raise invalid_response(f"its discovery document is not valid JSON: {error}") from None
        if not isinstance(metadata, dict) or metadata.get("issuer") != self.issuer:
            raise invalid_response("its discovery document names another issuer")
        try:
            jwks_uri = HTTPSField().clean(metadata.get("jwks_uri"))
        except ValidationError:
            raise invalid_response("its discovery document has no jwks_uri with https") from None
        source = Source(self.tenant, jwks_uri, self.deadline, self.ca_certificates)
        jwks = document(source, JWKSetReader(self.tenant, self.algorithms))
        jwks.prepare()
        return jwks


def discovery_url(settings: Mapping[str, Any]) -> str:
    return f"{settings['issuer'].removesuffix('/')}/.well-known/openid-configuration"


def discovery_document(settings: Mapping[str, Any], tenant: str) -> Document[Document[JWKSet]]:
    upstream = settings["deadline"], settings["ca_certificates"]
    reader = DiscoveryReader(tenant, settings["issuer"], tuple(settings["algorithms"]), *upstream)
    return document(Source(tenant, discovery_url(settings), *upstream), reader)
