"""CORS (the Fetch standard, section 3.2) for the origins that a tenant allows.

Not by django-cors-headers, which has one list for all tenants (docs/decisions/0013-our-own-cors.md).
"""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ags.api.request.resolve import refresh_snapshot
from tenants.snapshot import snapshot

REQUEST_HEADERS = (
    "content-type, authorization, accept-language, cache-control, pragma, expires, nagra-device-type, "
    "nagra-target, nv-tenant-id, x-auth-service-id, x-correlation-id, user-token"
)
RESPONSE_HEADERS = "x-ags-config, x-correlation-id, retry-after"
MAX_AGE = "600"
"""Seconds for which a browser caches a preflight response, also after the origin was removed."""


async def respond_to_preflight(request: HttpRequest, methods: Sequence[str]) -> HttpResponse | None:
    """A preflight request names no tenant: any may allow the origin, and `add_cors_headers` decides."""
    origin = request.META.get("HTTP_ORIGIN", "")
    if request.method != "OPTIONS" or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in request.META:
        return None
    await refresh_snapshot()
    if not snapshot.is_listed_origin(origin):
        return None
    return HttpResponse(
        status=204,
        headers={
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": ", ".join(methods).upper(),
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": MAX_AGE,
            "Vary": "origin",
        },
    )


def add_cors_headers(request: HttpRequest, response: HttpResponseBase, tenant_id: str | None) -> None:
    """Views of cacheable responses set `Vary: origin` themselves."""
    origin = request.META.get("HTTP_ORIGIN", "")
    if origin and tenant_id is not None and origin in snapshot.get_origins(tenant_id):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
