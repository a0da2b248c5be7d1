"""`GET /healthz` and `GET /readyz`: for whoever starts, stops and routes to this process."""

from __future__ import annotations

from django.db import connection
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers

from ags.api.errors import UNAVAILABLE, ApiError
from ags.api.openapi import refusals
from ags.api.views.base import GatewayView, Response
from ags.database import READS, database, fetch_all
from ags.database.django_connections import READ_ONLY
from ags.operations import migrations_state

STATUS = inline_serializer("Status", {"status": serializers.CharField()})


class Alive(GatewayView):
    """Whether the process lives. Never touches the database."""

    http_method_names = ["get", "head"]

    @extend_schema(operation_id="healthz", summary="Does the process live?", responses={200: STATUS})
    async def get(self, request: HttpRequest) -> Response:
        """Restart the process when this does not answer."""
        return Response({"status": "alive"})


class Ready(GatewayView):
    """Whether requests can be served."""

    http_method_names = ["get", "head"]

    @extend_schema(operation_id="readyz", summary="Can it serve?", responses={200: STATUS, **refusals(503)})
    async def get(self, request: HttpRequest) -> Response:
        """Send no requests on 503: it stops, or its database is unavailable, read-only or not migrated."""
        if request.META.get("ags.stopping"):
            raise ApiError(UNAVAILABLE, why="stopping")
        await _check_database()
        return Response({"status": "ready"})


async def _check_database() -> None:
    """Raise ApiError (503) when the database cannot serve requests; raise Django's database errors."""
    if await migrations_state.missing_migrations():
        raise ApiError(UNAVAILABLE, why="database_not_migrated")
    if connection.vendor == "postgresql" and await fetch_all(READ_ONLY, {}, READS) != [(False,)]:
        raise ApiError(UNAVAILABLE, why="database_read_only")
    if not database().is_available:  # another connection is not back yet
        raise ApiError(UNAVAILABLE, why="database_unavailable")
