"""A collector for traces: it receives OTLP over HTTP, and keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.waiting import PATIENCE, wait_until


@dataclass(frozen=True)
class Span:
    """A received span. IDs are hexadecimal; `parent` is empty for the first span of a trace."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(repr=False)


@dataclass
class Collector:
    """`status`: of its responses; `refused`: the number of those that were not 200.

    `respond`: it does not respond until this is set.
    """

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list, repr=False)
    status: int = 200
    refused: int = 0
    respond: threading.Event = field(default_factory=threading.Event)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the variables of a server that sends its spans soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            **changes,
        }

    def wait_for(self, correlation_id: str) -> Span:
        """Return the span of a request, when it has arrived."""
        wait_until(lambda: self.find(correlation_id), f"no span of {correlation_id}: {self.spans}")
        (span,) = self.find(correlation_id)
        return span

    def find(self, correlation_id: str) -> list[Span]:
        """Return the spans of a request with that ID."""
        return [span for span in self.spans if span.attributes.get("ags.correlation_id") == correlation_id]

    def children(self, parent: Span) -> list[Span]:
        """Return the spans that this one is the parent of; they end, and are sent, before it."""
        return [span for span in self.spans if span.parent == parent.id]


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector. At the end, it responds to all requests."""
    its = Collector()
    its.respond.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(its))
    its.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield its
    finally:
        its.respond.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def _handler(its: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            its.respond.wait(PATIENCE)
            if its.status == 200 and self.path == "/v1/traces":
                its.bodies.append(body)
                its.spans.extend(_parse(body))
            else:
                its.refused += 1
            self.send_response(its.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _parse(body: bytes) -> Iterator[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        for span in (span for scope in group.scope_spans for span in scope.spans):
            yield Span(
                name=span.name,
                kind=span.kind,
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                links=tuple(link.span_id.hex() for link in span.links),
                is_error=span.status.code == Status.STATUS_CODE_ERROR,
                attributes=_values(span.attributes),
                resource=_values(group.resource.attributes),
            )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
