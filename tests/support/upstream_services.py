"""Services that use an upstream of the test."""

from __future__ import annotations

from typing import Any

from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.upstream.authority import authority
from tests.support.upstream.https import HTTPSServer

PROVIDERS = "providers.operator_token,providers.token_introspection"
INTROSPECTION = "Introspection"
SIGNED = "Signed"


def add_introspection(head_end: HeadEnd, upstream: HTTPSServer, deadline: float = 10) -> None:
    Service(
        tenant_id=head_end.tenant_id,
        name=INTROSPECTION,
        strategy="token_introspection",
        display_name="x",
        enabled=True,
        settings={
            "address": f"{upstream.url}/introspect",
            "client_id": "ags",
            "client_secret": "a secret",
            "deadline": deadline,
            "ca_certificates": authority().certificate,
        },
    ).save()


def introspect(head_end: HeadEnd) -> Any:
    body = {"parameters": [{"name": "AccessToken", "value": "an-access-token"}]}
    return head_end.post(body, x_auth_service_id=INTROSPECTION)


def add_signed_jwt(head_end: HeadEnd, upstream: HTTPSServer) -> None:
    """Add a service that fetches the keys of the operator."""
    Service(
        tenant_id=head_end.tenant_id,
        name=SIGNED,
        strategy="signed_jwt",
        display_name="x",
        enabled=True,
        settings={
            "key_set_address": f"{upstream.url}/keys",
            "issuer": "https://a.example",
            "audience": "ags",
            "ca_certificates": authority().certificate,
        },
    ).save()
