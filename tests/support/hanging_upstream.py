"""A service whose upstream a test can let hang."""

from __future__ import annotations

from typing import Any

from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.upstream.authority import authority
from tests.support.upstream.https import HTTPSServer

PROVIDERS = "providers.operator_token,providers.token_introspection"
HANGING = "Hanging"


def add_service(head_end: HeadEnd, upstream: HTTPSServer, deadline: float) -> None:
    Service(
        tenant_id=head_end.tenant_id,
        name=HANGING,
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


def present(head_end: HeadEnd) -> Any:
    body = {"parameters": [{"name": "AccessToken", "value": "an-access-token"}]}
    return head_end.post(body, x_auth_service_id=HANGING)
