"""Whom TLS trusts, for every protocol that upstreams are asked by."""

from __future__ import annotations

import ssl


def trusting(authorities: str) -> ssl.SSLContext:
    """Return a context for these authorities (PEM) alone, or if there are none, for those of the system.

    An authority may be an intermediate one, whose own issuer is not among them. That is so from Python 3.13
    on, and with most other clients.
    """
    context = ssl.create_default_context(cadata=authorities or None)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
