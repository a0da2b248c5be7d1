"""Sending spans to the collector, from a thread of each process."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracer, Tracer

from ags import __version__

CLOSE_TIMEOUT = 2.0
"""Seconds for the last spans when the process stops. A collector that takes longer loses them."""

SERVICE_NAME = "ags"
"""The default of OTEL_SERVICE_NAME."""

_LIBRARY_LOGGERS = ("opentelemetry", "urllib3")

log = logging.getLogger("ags.tracing")


class Exporter(SpanExporter):
    """Logs one line when an outage of the collector begins, and one when it ends."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            log.warning("traces cannot be sent")
        elif self._is_failing and not is_failing:
            log.info("traces are sent again")
        self._is_failing = is_failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Tracing:
    """`tracer`: that of the process. It records nothing before `open_tracing`."""

    provider: TracerProvider | None = None
    tracer: Tracer = NoOpTracer()


def get_tracer() -> Tracer:
    return _Tracing.tracer


def open_tracing() -> None:
    """Call this after the fork: it starts a thread. The library reads its settings from the environment."""
    # The library would log invalid headers with their values, which are secrets, and a traceback or several
    # lines for each failure of the collector.
    for name in _LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _check_headers()
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(Exporter(OTLPSpanExporter())))
    except Exception as error:  # noqa: BLE001 - the library raises several types for an invalid setting
        log.error("traces are off", extra={"cause": type(error).__qualname__})
        return
    _Tracing.provider, _Tracing.tracer = provider, provider.get_tracer("ags", __version__)


def _check_headers() -> None:
    """Log the variables with headers that the library ignores, without their values."""
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        entries = [entry for entry in os.environ.get(name, "").split(",") if entry.strip()]
        if not all(entry.partition("=")[1] for entry in entries):
            log.error("headers of traces are not NAME=VALUE", extra={"variable": name})


async def close_tracing() -> None:
    """Send the last spans, for at most CLOSE_TIMEOUT."""
    provider, _Tracing.provider = _Tracing.provider, None
    if provider is None:
        return
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        provider.shutdown()  # waits for the collector, up to half a minute
        try:
            loop.call_soon_threadsafe(closed.set)
        except RuntimeError:  # the loop has ended
            return

    # A daemon: the process does not wait for it.
    threading.Thread(target=close, name="close traces", daemon=True).start()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await closed.wait()
    except TimeoutError:
        log.warning("the last traces were not sent")


def _resource() -> Resource:
    detected = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    return Resource.create({"service.name": SERVICE_NAME, "service.version": __version__, **detected})
