"""The spans of a request, of its statements, and of its calls to upstreams.

No span contains a parameter, a token or an account: paths are those of routes, statements have placeholders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ags.tracing.export import get_tracer

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""Other methods have the name `_OTHER`, by the semantic conventions."""

_LINKS = context.create_key("ags-links")

_BEFORE_TABLE = frozenset({"INTO", "UPDATE", "FROM", "JOIN"})

_propagator = TraceContextTextMapPropagator()


@contextmanager
def request_span(scope: Mapping[str, Any]) -> Iterator[None]:
    """The span of a request, which continues the trace of the header `traceparent` if that is valid."""
    carrier: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if len(carrier.get("traceparent", ())) > 1:
        carrier.clear()
    method = _known_method(scope["method"])
    span = get_tracer().start_span(
        "HTTP" if method == "_OTHER" else method,
        _propagator.extract(carrier, context.Context()),
        SpanKind.SERVER,
        {"http.request.method": method, "url.scheme": scope["scheme"]},
    )
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
        span.end()


def describe_request(
    method: str | None, route: str | None, status: int | None, attributes: Mapping[str, str | None]
) -> None:
    """Complete the span of this request. `status` is None if the client disconnected."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    if route is not None:
        known = _known_method(method)
        span.update_name(f"{'HTTP' if known == '_OTHER' else known} {route}")
        span.set_attributes({"http.route": route, "url.path": route})
    for name, value in attributes.items():
        if value is not None:
            span.set_attribute(f"ags.{name}", value)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _fail(span, str(status))


@contextmanager
def statement_span(statement: str, system: str) -> Iterator[None]:
    """The span of a statement; none outside of requests, and after the response.

    `system`: the name of the database system by the semantic conventions.
    """
    if not trace.get_current_span().is_recording():
        yield
        return
    text, operation, table = _describe_statement(statement)
    attributes = {"db.system.name": system, "db.operation.name": operation, "db.query.text": text}
    if table is not None:
        attributes["db.collection.name"] = table
    links: Any = context.get_value(_LINKS)
    name = operation if table is None else f"{operation} {table}"
    span = get_tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes, links=links)
    try:
        yield
    except BaseException as error:
        sqlstate = getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
        if sqlstate is not None:
            span.set_attribute("db.response.status_code", sqlstate)
        _fail(span, sqlstate or type(error).__qualname__)
        raise
    finally:
        span.end()


class BatchTracer:
    """A statement for several requests is a child of the first that is sampled, with links to the others."""

    @staticmethod
    def current() -> Span:
        return trace.get_current_span()

    @staticmethod
    @contextmanager
    def use(spans: Sequence[Span]) -> Iterator[None]:
        sampled = [span for span in spans if span.is_recording()]
        links = [Link(span.get_span_context()) for span in sampled[1:]]
        parent = sampled[0] if sampled else trace.INVALID_SPAN
        token = context.attach(context.set_value(_LINKS, links, trace.set_span_in_context(parent)))
        try:
            yield
        finally:
            context.detach(token)


def add_upstream_call(upstream: str, outcome: str, seconds: float, *, has_failed: bool) -> None:
    """Add the span of a call that has ended. `upstream` is `host:port`."""
    parent = trace.get_current_span().get_span_context()
    if not parent.trace_flags.sampled:
        return
    host, _, port = upstream.rpartition(":")
    ended = time.time_ns()
    span = get_tracer().start_span(
        f"call {upstream}",
        kind=SpanKind.CLIENT,
        attributes={"server.address": host, "server.port": int(port), "ags.outcome": outcome},
        start_time=ended - int(seconds * 1e9),
    )
    if has_failed:
        _fail(span, outcome)
    span.end(ended)


def _fail(span: Span, error_type: str) -> None:
    """Without the message of an error, which may contain input of a caller."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


def _known_method(method: str | None) -> str:
    return method if method in METHODS else "_OTHER"


@lru_cache(maxsize=512)
def _describe_statement(statement: str) -> tuple[str, str, str | None]:
    """Return the text, the operation, which is the first word, and the first table."""
    words = statement.split()
    tables = (word.strip('"') for before, word in pairwise(words) if before in _BEFORE_TABLE)
    # A subquery or function has a parenthesis; the tables of AGS and Django have an underscore.
    table = next((name for name in tables if name.isidentifier() and "_" in name), None)
    return statement.strip(), words[0].upper() if words else "", table
