"""Limits: counters by key in fixed windows, which all processes share through Redis if it is configured."""

from ags.limits.limiter import Hit, Limit, Limiter
from ags.limits.password_hasher import PASSWORDS_AT_ONCE
from ags.limits.redis import close_redis, open_redis

__all__ = [
    "ADDRESS_FAILURES",
    "EXPLANATION_OPENINGS",
    "LIMITERS",
    "LIMITS",
    "PASSWORD_FAILURES",
    "SIGN_ONS",
    "STAFF_ADDRESS_FAILURES",
    "STAFF_BROWSER_FAILURES",
    "STAFF_LOCKOUTS",
    "STAFF_USERNAME_FAILURES",
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

STAFF_ADDRESS_FAILURES = Limiter("staff_address", seconds=900)
"""Failed logins of staff, of a client address."""

STAFF_USERNAME_FAILURES = Limiter("staff_username", seconds=900)
"""Failed logins of staff, of a username."""

STAFF_BROWSER_FAILURES = Limiter("staff_browser", seconds=900)
"""Failed logins of staff, of a browser that has logged in as this user before."""

EXPLANATION_OPENINGS = Limiter("explanation", seconds=60)
"""Requests for the explanation of a link."""

STAFF_LOCKOUTS = Limit("staff_lockout")
"""Failed logins of staff, of a username and a client address. Counted by django-axes, in the database."""

LIMITERS = (
    ADDRESS_FAILURES,
    SIGN_ONS,
    PASSWORD_FAILURES,
    STAFF_ADDRESS_FAILURES,
    STAFF_USERNAME_FAILURES,
    STAFF_BROWSER_FAILURES,
    EXPLANATION_OPENINGS,
)

LIMITS: tuple[Limit, ...] = (*LIMITERS, STAFF_LOCKOUTS, PASSWORDS_AT_ONCE)
