"""`GET /healthz` and `GET /readyz`: probes for orchestrators and load balancers."""

import time

from django.db import connection
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers

from ags.api.errors import UNAVAILABLE, ApiError
from ags.api.openapi_components import error_responses
from ags.api.views.base import GatewayView, Response
from ags.database import READS, fetch_all, get_database
from ags.database.clock import TIME_EXPRESSION, is_clock_wrong
from ags.database.django_connections import READ_ONLY_QUERY
from ags.operations import migrations_state
from providers.contract.clock import database_clock

STATE_QUERY = f"{READ_ONLY_QUERY}, {TIME_EXPRESSION}"

STATUS = inline_serializer("Status", {"status": serializers.CharField()})


class Liveness(GatewayView):
    http_method_names = ["get", "head"]

    @extend_schema(operation_id="healthz", summary="Liveness probe", responses={200: STATUS})
    async def get(self, request: HttpRequest) -> Response:
        """Return 200 while the process is alive. Restart it if it does not respond."""
        return Response({"status": "alive"})


class Readiness(GatewayView):
    http_method_names = ["get", "head"]

    @extend_schema(
        operation_id="readyz", summary="Readiness probe", responses={200: STATUS, **error_responses(503)}
    )
    async def get(self, request: HttpRequest) -> Response:
        """Return 503 if the process should receive no requests.

        It is stopping, its database is unavailable, read-only or not migrated, or its clock is wrong.
        """
        if request.META.get("ags.stopping"):
            raise ApiError(UNAVAILABLE, log_reason="stopping")
        if await migrations_state.missing_migrations():
            raise ApiError(UNAVAILABLE, log_reason="database_not_migrated")
        if connection.vendor == "postgresql" and await _is_read_only():
            raise ApiError(UNAVAILABLE, log_reason="database_read_only")
        if not get_database().is_available:  # another connection has not recovered yet
            raise ApiError(UNAVAILABLE, log_reason="database_unavailable")
        if is_clock_wrong():
            raise ApiError(UNAVAILABLE, log_reason="clock_differs")
        return Response({"status": "ready"})


async def _is_read_only() -> bool:
    """Measure the clock with the same statement."""
    sent_at = time.monotonic()
    ((is_read_only, database_time),) = await fetch_all(STATE_QUERY, {}, READS)
    database_clock.add(database_time, sent_at)
    return bool(is_read_only)
