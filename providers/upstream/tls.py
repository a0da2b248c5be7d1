"""TLS contexts for upstreams."""

import ssl
from typing import Any


class SSLSocket(ssl.SSLSocket):
    """Closes a connection that the other side has reset.

    `SSLContext.wrap_socket` reads from the connection before TLS starts, and does not close it on an error.
    """

    def recv(self, *args: Any) -> bytes:
        try:
            return super().recv(*args)
        except ConnectionError:
            self.close()
            raise


def tls_context(ca_certificates: str) -> ssl.SSLContext:
    """Return a context that trusts only these CA certificates (PEM); empty: those of the operating system.

    An intermediate CA certificate can be trusted without its issuer, as in most other clients and by default
    since Python 3.13.
    """
    context = ssl.create_default_context(cadata=ca_certificates or None)
    context.sslsocket_class = SSLSocket
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
