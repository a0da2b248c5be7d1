"""Requests to upstreams: with a deadline, limited concurrency, and only to allowed addresses."""

from providers.upstream.address import resolve_addresses
from providers.upstream.bulkhead import run
from providers.upstream.documents import Document, Source, document
from providers.upstream.http import request
from providers.upstream.response import Response
from providers.upstream.tls import tls_context

__all__ = ["Document", "Response", "Source", "document", "request", "resolve_addresses", "run", "tls_context"]
