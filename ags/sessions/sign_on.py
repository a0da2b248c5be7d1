"""Signing on by a proof itself: one transaction, in which one INSERT decides."""

from __future__ import annotations

from django.db import transaction

from ags.sessions.client_tokens import SignOn
from ags.sessions.device import KnownDevice, NewDevice, admit
from ags.sessions.issue import consume_proof
from providers.contract import Identity
from tenants.view import ServiceView, TenantView


def sign_on(
    tenant: TenantView,
    service: ServiceView,
    identity: Identity,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> SignOn:
    """Accept the proof and sign the device on; when this returns, both are committed.

    The session token under which the proof is stored is spent from the beginning, and nobody is ever told it.
    Raises as `consume_proof`, and `Denied`, which leaves a proof with a jti as if it had not been presented.
    """
    with transaction.atomic():
        proof = consume_proof(tenant, service, identity, correlation_id)
        return admit(tenant, proof, device, correlation_id)
