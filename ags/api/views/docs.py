"""`GET /openapi.json`, and the API reference at `/docs/`."""

from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.request import Request

from ags.api.views.base import GatewayView

OPENAPI_FILE: Path = settings.BASE_DIR / "openapi.json"


@cache
def _read_openapi_file() -> bytes:
    return OPENAPI_FILE.read_bytes()


class OpenAPI(GatewayView):
    http_method_names = ["get", "head"]

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(
            _read_openapi_file(), content_type="application/json", headers={"Cache-Control": "no-cache"}
        )


class APIReference(SpectacularSwaggerView):
    http_method_names = ["get", "head"]
    url = "/openapi.json"

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Ignore the Accept header: there is only HTML."""
        (renderer,) = self.get_renderers()
        return renderer, renderer.media_type


class RedirectToPage(GatewayView):
    """Redirects a URL without trailing slash to the page named `page`."""

    http_method_names = ["get", "head"]
    page = ""

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse(self.page))
