"""Changes of the configuration, and processes that do not follow them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tenants.models import Tenant, read_configuration_version


def rename(tenant_id: str) -> int:
    """Change a tenant; return the version of the configuration since then."""
    tenant = Tenant.objects.get(pk=tenant_id)
    tenant.name += "!"
    tenant.save()
    return read_configuration_version()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
