"""`manage.py serve`: the production server."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from providers.contract import UpstreamSettings
from providers.registry import strategies
from providers.upstream.room import PLACES

THREADS = 8
"""Per worker: each holds one database connection, and waits for it most of its time.

Where requests may wait for upstreams, there are as many more as may do so at once.
"""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where gunicorn makes a file of its own

log = logging.getLogger("ags.serve")


class Command(BaseCommand):
    """Check everything, then become the server."""

    help = "Run the production server on AGS_BIND with AGS_WORKERS processes. Migrates nothing."
    requires_system_checks = "__all__"

    def handle(self, *args: Any, **options: Any) -> None:
        """Replace this process by gunicorn."""
        # The checks of the database come last, for they are the only ones that need it.
        self.check(databases=["default"], include_deployment_checks=False)
        program = shutil.which("gunicorn", path=str(Path(sys.executable).parent)) or shutil.which("gunicorn")
        if program is None:
            raise CommandError(
                "gunicorn is not installed: pip install --require-hashes -r requirements/runtime.txt"
            )
        log.info(
            "starting",
            extra={
                "bind": settings.AGS_BIND,
                "operations_bind": settings.AGS_OPERATIONS_BIND,
                "workers": settings.AGS_WORKERS,
                "threads": _threads(),
                "providers": settings.AGS_PROVIDERS,
                "admin": settings.AGS_ADMIN,
                "debug": settings.DEBUG,
            },
        )
        sys.stderr.flush()
        os.execv(program, [program, *_arguments(), "ags.wsgi:application"])  # noqa: S606 - no shell is wanted


def _threads() -> int:
    asks = any(issubclass(strategy.Settings, UpstreamSettings) for strategy in strategies().values())
    return THREADS + PLACES if asks else THREADS


def _arguments() -> list[str]:
    arguments = [
        f"--bind={settings.AGS_BIND}",
        *([f"--bind={settings.AGS_OPERATIONS_BIND}"] if settings.AGS_OPERATIONS_BIND else []),
        f"--workers={settings.AGS_WORKERS}",
        f"--threads={_threads()}",
        "--worker-class=ags.api.worker.Worker",
        "--logger-class=ags.api.worker.Log",
        "--keep-alive=75",
        "--graceful-timeout=20",
        "--log-level=error",
        "--no-control-socket",
        "--no-sendfile",  # else the head of an answer would go by itself
        # No peer may set SCRIPT_NAME or the scheme; how many proxies to believe, the application decides.
        "--forwarded-allow-ips=",
    ]
    if SHARED_MEMORY.is_dir():
        arguments.append(f"--worker-tmp-dir={SHARED_MEMORY}")  # a heartbeat that no disk can delay
    return arguments
