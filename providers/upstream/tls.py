"""TLS contexts for upstreams."""

from __future__ import annotations

import ssl
from typing import Any


class SSLSocket(ssl.SSLSocket):
    """Closes a connection that the other side has reset.

    `SSLContext.wrap_socket` reads from it before TLS begins, and leaves the socket open if that fails.
    """

    def recv(self, *args: Any) -> bytes:
        """Return the bytes received."""
        try:
            return super().recv(*args)
        except ConnectionError:
            self.close()
            raise


def tls_context(authorities: str) -> ssl.SSLContext:
    """Return a context that trusts only these CA certificates (PEM), or those of the system if empty.

    An intermediate CA certificate may be trusted without its issuer, as in most other clients and by default
    from Python 3.13.
    """
    context = ssl.create_default_context(cadata=authorities or None)
    context.sslsocket_class = SSLSocket
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
