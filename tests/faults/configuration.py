"""The tenant of the faults."""

from __future__ import annotations

import base64

from bench.systems import ags, asking
from tests.support.server import server_environment

PROVIDERS = "providers.operator_token,providers.token_introspection"


def set_up(database: str, *services: dict[str, object], **limits: int) -> None:
    """Migrate, and set the tenant up."""
    its = ags.configuration(**limits)
    its["tenants"][0]["services"] += services
    secret = base64.b64encode(asking.SECRET).decode()
    more = {"DATABASE_URL": database, "BENCH_SECRET": secret, "AGS_LOG_LEVEL": "ERROR"}
    ags.apply(server_environment(AGS_PROVIDERS=PROVIDERS, **more), its)
