"""TLS contexts for upstreams."""

from __future__ import annotations

import ssl


def tls_context(authorities: str) -> ssl.SSLContext:
    """Return a context that trusts only these CA certificates (PEM), or those of the system if empty.

    An intermediate CA certificate may be trusted without its issuer, as in most other clients and by default
    from Python 3.13.
    """
    context = ssl.create_default_context(cadata=authorities or None)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
