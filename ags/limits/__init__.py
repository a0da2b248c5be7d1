"""Limits: counters by key in fixed windows, which all processes share through Redis if it is configured."""

from ags.limits.limiter import Hit, Limiter
from ags.limits.redis import close_redis, open_redis

__all__ = [
    "ADDRESS_FAILURES",
    "LIMITERS",
    "PASSWORD_FAILURES",
    "SIGN_ONS",
    "Hit",
    "Limiter",
    "close_redis",
    "open_redis",
]

ADDRESS_FAILURES = Limiter("address", seconds=10)
"""Refused requests of a tenant and a client address. A corrected head-end is served within 10 seconds."""

SIGN_ONS = Limiter("account", seconds=60, unshared=1)
"""Session tokens and sign-ons of a tenant and an account. For the first in a minute, Redis is not used."""

PASSWORD_FAILURES = Limiter("password", seconds=900)
"""Passwords that were not accepted, of a tenant, service and username."""

LIMITERS = (ADDRESS_FAILURES, SIGN_ONS, PASSWORD_FAILURES)
