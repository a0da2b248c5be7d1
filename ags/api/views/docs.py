"""`GET /openapi.json`, and the API reference at `/docs/`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
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


class IgnoreClientContentNegotiation(BaseContentNegotiation):
    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class APIReference(SpectacularSwaggerView):
    content_negotiation_class = IgnoreClientContentNegotiation
    http_method_names = ["get", "head"]
    url = "/openapi.json"


class RedirectToPage(GatewayView):
    """Redirects a URL without trailing slash to the page named `page`."""

    http_method_names = ["get", "head"]
    page = ""

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse(self.page))
