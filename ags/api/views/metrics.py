"""`GET /metrics`: metrics in the Prometheus text format, only on the operations port."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from ags.api.views.base import GatewayView
from ags.operations import metrics


class Metrics(GatewayView):
    http_method_names = ["get", "head"]

    async def dispatch(  # type: ignore[override] # the middleware awaits it
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if not request.META.get("ags.operations"):
            raise Http404
        return await super().dispatch(request, *args, **kwargs)

    @extend_schema(exclude=True)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(await metrics.render_metrics(), content_type=metrics.CONTENT_TYPE)
