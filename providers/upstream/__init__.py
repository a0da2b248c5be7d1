"""Asking servers of the operator: within a deadline, from few threads at once, at addresses that are allowed.

What a provider uses: `ask` for HTTP, `document` for what is fetched in the background and kept, `within`,
`addresses_of` and `trusting` for any other protocol.
"""

from providers.upstream.address import addresses_of
from providers.upstream.answer import Answer
from providers.upstream.documents import Document, Source, document
from providers.upstream.http import ask
from providers.upstream.room import within
from providers.upstream.tls import trusting

__all__ = ["Answer", "Document", "Source", "addresses_of", "ask", "document", "trusting", "within"]
