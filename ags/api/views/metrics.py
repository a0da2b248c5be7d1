"""`GET /metrics`: for what watches over AGS, on the operations port alone."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from ags.api.views.base import GatewayView
from ags.database import run_with_orm
from ags.operations import metrics


class Metrics(GatewayView):
    """In the text format of Prometheus."""

    http_method_names = ["get", "head"]

    async def dispatch(  # type: ignore[override] # the middleware awaits it
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Elsewhere than on the operations port there is no such address, whatever the method."""
        if not request.META.get("ags.operations"):
            raise Http404
        return await super().dispatch(request, *args, **kwargs)

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        """Tell what is measured."""
        return HttpResponse(await run_with_orm(metrics.render_metrics), content_type=metrics.CONTENT_TYPE)
