"""Cross-origin requests (the Fetch standard, section 3.2), for the origins that a tenant lists."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ags.api.request.resolve import refresh_snapshot
from tenants.snapshot import snapshot

REQUEST_HEADERS = (
    "content-type, authorization, accept-language, cache-control, pragma, expires, nagra-device-type, "
    "nagra-target, nv-tenant-id, x-auth-service-id, x-correlation-id, user-token"
)
RESPONSE_HEADERS = "x-correlation-id, retry-after"
MAX_AGE = "600"
"""Seconds for which a browser need not ask again; after that, an origin that was taken away is refused."""


async def preflight(request: HttpRequest, methods: Sequence[str]) -> HttpResponse | None:
    """Answer the question of a browser before the request itself; return None when it is no such question.

    It names no tenant: the header with it comes only with the request. So it passes where any tenant lists
    the origin; whether the page may read the answer is decided by `allow`. Raises as `refresh_snapshot`.
    """
    origin = request.META.get("HTTP_ORIGIN", "")
    asks = request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
    if not asks:
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


def allow(request: HttpRequest, response: HttpResponseBase, tenant_id: str | None) -> None:
    """Let the page of an origin that the tenant lists read the answer, a refusal as well.

    What a cache may keep says `Vary: origin` by itself.
    """
    origin = request.META.get("HTTP_ORIGIN", "")
    if origin and tenant_id is not None and origin in snapshot.get_origins(tenant_id):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
