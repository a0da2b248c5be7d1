"""`GET /openapi.json`, as committed, and the reference at `/docs/` that shows it."""

from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView

from ags.api.views.base import GatewayView

OPENAPI_FILE: Path = settings.BASE_DIR / "openapi.json"


@cache
def _openapi() -> bytes:
    return OPENAPI_FILE.read_bytes()


class OpenAPI(GatewayView):
    """The description of this API, for machines."""

    http_method_names = ["get", "head"]

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        """Return the committed file."""
        return HttpResponse(
            _openapi(), content_type="application/json", headers={"Cache-Control": "no-cache"}
        )


class Reference(SpectacularSwaggerView):
    """The same for people."""

    http_method_names = ["get", "head"]
    url = "/openapi.json"


class ToPage(GatewayView):
    """Leads a person who typed the address without its last slash."""

    http_method_names = ["get", "head"]
    page = ""

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        """Redirect."""
        return HttpResponseRedirect(reverse(self.page))
