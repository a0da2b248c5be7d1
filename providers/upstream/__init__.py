"""Requests to upstreams: with a deadline, limited concurrency, and only to allowed addresses.

What a provider uses: `request` for HTTP, `document` for what is fetched in the background and kept, `run`,
`resolve_addresses` and `tls_context` for any other protocol.
"""

from providers.upstream.address import resolve_addresses
from providers.upstream.bulkhead import run
from providers.upstream.documents import Document, Source, document
from providers.upstream.http import request
from providers.upstream.response import Response
from providers.upstream.tls import tls_context

__all__ = ["Document", "Response", "Source", "document", "request", "resolve_addresses", "run", "tls_context"]
