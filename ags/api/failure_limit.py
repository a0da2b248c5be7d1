"""The limit on refused requests by client address."""

import math
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest

from ags.api.access_log import AccessLogEntry
from ags.api.client_ip import client_block, normalize
from ags.api.errors import TOO_MANY_FAILURES, ApiError
from ags.limits import ADDRESS_FAILURES
from ags.limits.blocks import Blocks
from tenants.models.tenant import DEFAULT_MAX_FAILURES
from tenants.snapshot import snapshot
from tenants.tenant_snapshot import Limits

FAILURES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

UNKNOWN_TENANT = ""
"""Requests that name no tenant, or one that does not exist, share a limit."""

UNKNOWN_TENANT_LIMITS = Limits(DEFAULT_MAX_FAILURES, 0, ())

blocks = Blocks()
"""By tenant and client. Requests look up only this table, and only those that are refused are counted."""


def raise_if_blocked(request: HttpRequest, entry: AccessLogEntry) -> None:
    """Raises ApiError (429), before anything of the request is looked up."""
    address, tenant_id = _read_address(entry), _read_tenant_id(request)
    if address is None:
        return
    remaining = blocks.remaining((tenant_id, client_block(address)))
    if remaining and _applicable_maximum(tenant_id, address):
        if tenant_id:
            entry.tenant = tenant_id
        ADDRESS_FAILURES.refusals.increment()
        raise ApiError(TOO_MANY_FAILURES, retry_after=math.ceil(remaining))


async def count_failure(request: HttpRequest, entry: AccessLogEntry) -> None:
    """Count a refused request, and block the client if it has too many. Raises nothing."""
    address, tenant_id = _read_address(entry), _read_tenant_id(request)
    if address is None:
        return
    maximum = _applicable_maximum(tenant_id, address)
    if maximum:
        client = client_block(address)
        remaining = await ADDRESS_FAILURES.hit(maximum, tenant_id, client)
        if remaining:
            blocks.add((tenant_id, client), remaining)


def _read_address(entry: AccessLogEntry) -> str | None:
    """Return None if the address is not that of a client.

    Without AGS_TRUSTED_PROXIES, a private address may be that of a proxy with all clients behind it.
    """
    address = entry.client_address
    if address is None or (normalize(address).is_private and not settings.AGS_TRUSTED_PROXIES):
        return None
    return address


def _applicable_maximum(tenant_id: str, address: str) -> int:
    """Return 0 if there is no limit."""
    limits = UNKNOWN_TENANT_LIMITS
    if tenant_id:
        try:
            tenant = snapshot.get_cached_tenant(tenant_id)
        except LookupError:  # not loaded: nothing has been verified for it
            return 0
        limits = tenant.limits if tenant else limits
    return 0 if limits.is_exempt(normalize(address)) else limits.max_failures_per_address


def _read_tenant_id(request: HttpRequest) -> str:
    """Return the tenant for which the view serves the request, or `UNKNOWN_TENANT`."""
    match = request.resolver_match
    variables = () if match is None else match.func.view_class.tenant_headers  # type: ignore[attr-defined]
    if not variables:
        return UNKNOWN_TENANT
    meta = request.META
    tenant_id = next(filter(None, map(meta.get, variables)), settings.AGS_DEFAULT_TENANT)
    return tenant_id if snapshot.has_tenant(tenant_id) else UNKNOWN_TENANT
