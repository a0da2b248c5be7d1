"""The ASGI application with traces. `ags.asgi` imports this only if they are on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.backends.signals import connection_created

from ags.api.access_log import PROBE_PATHS, AccessLogEntry
from ags.api.application import Application, Message, Receive, Send
from ags.database.async_connection import Connection
from ags.database.batching import Batcher
from ags.database.lane import Lane
from ags.tracing.export import close_tracing, open_tracing
from ags.tracing.spans import BatchTracer, add_upstream_call, describe_request, request_span, statement_span
from providers.upstream.bulkhead import ANSWERED, Bulkhead


class TracedLane(Lane):
    async def execute(
        self, pg: Connection, statement: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        with statement_span(statement, "postgresql"):
            return await super().execute(pg, statement, params)


class TracedApplication(Application):
    """Has a span for each request that is no probe, for its statements, and for its calls to upstreams."""

    lane_type = TracedLane
    copies_context = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await super().__call__(scope, receive, send)
        else:
            with request_span(scope):
                await super().__call__(scope, receive, send)

    async def start(self) -> None:
        open_tracing()
        AccessLogEntry.observers.append(_observe_request)
        Bulkhead.observers.append(_observe_upstream_call)
        Batcher.tracer = BatchTracer()
        connection_created.connect(_trace_statements)
        await super().start()

    async def stop(self) -> None:
        await asyncio.gather(super().stop(), close_tracing())


def _observe_request(entry: AccessLogEntry, status: int | None, outcome: str) -> None:
    attributes = {
        "correlation_id": entry.correlation_id,
        "tenant": entry.tenant,
        "service": entry.service,
        "outcome": outcome,
        "reason": entry.reason,
    }
    describe_request(entry.method, entry.route, status, attributes)


def _observe_upstream_call(upstream: str, outcome: str, seconds: float) -> None:
    add_upstream_call(upstream, outcome, seconds, has_failed=outcome != ANSWERED)


def _trace_statements(connection: Any, **_: Any) -> None:
    """Add spans for the statements of Django's connections: staff pages, the configuration, and SQLite."""
    if _execute not in connection.execute_wrappers:
        connection.execute_wrappers.append(_execute)


def _execute(
    execute: Callable[..., Any], statement: str, params: Any, many: bool, context: Mapping[str, Any]
) -> Any:
    with statement_span(statement, context["connection"].vendor):
        return execute(statement, params, many, context)
