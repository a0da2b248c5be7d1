"""`manage.py serve`: the production server."""

import gc
import logging
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.core.management.base import BaseCommand
from django.db import connections
from django.utils.module_loading import import_string
from gunicorn.app.base import BaseApplication

from ags import __version__
from ags.operations.checks import check_limits
from ags.server.arbiter import Arbiter, Logger
from ags.server.shared_data import open_shared_data
from ags.server.worker import Worker

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn creates a file with a random name in it

log = logging.getLogger("ags.serve")


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn in the process of the command, whose loaded modules the workers share."""

    def load_config(self) -> None:
        """The configuration file and the environment variables of gunicorn are not read."""
        self.cfg.set("bind", [bind for bind in (settings.AGS_BIND, settings.AGS_OPERATIONS_BIND) if bind])
        self.cfg.set("workers", settings.AGS_WORKERS)
        self.cfg.set("worker_class", Worker)
        self.cfg.set("logger_class", Logger)
        self.cfg.set("graceful_timeout", 20)
        self.cfg.set("loglevel", "error")
        self.cfg.set("control_socket_disable", True)
        if SHARED_MEMORY.is_dir():
            self.cfg.set("worker_tmp_dir", str(SHARED_MEMORY))  # a slow disk cannot delay the heartbeat

    def load(self) -> Any:
        return import_string("ags.asgi.application")

    def run(self) -> None:
        open_shared_data()
        Arbiter(self).run()


class Command(BaseCommand):
    help = "Run the production server on AGS_BIND with AGS_WORKERS processes. Does not migrate the database."
    requires_system_checks = "__all__"

    def handle(self, *args: Any, **options: Any) -> None:
        # Database checks run last, because only they need the database.
        self.check(tags=[Tags.database], databases=["default"])
        log.info(
            "starting",
            extra={
                "version": __version__,
                "bind": settings.AGS_BIND,
                "operations_bind": settings.AGS_OPERATIONS_BIND,
                "workers": settings.AGS_WORKERS,
                "providers": settings.AGS_PROVIDERS,
                "api": settings.AGS_ADMIN != "only",
                "admin": settings.AGS_ADMIN != "off",
                "debug": settings.DEBUG,
            },
        )
        for message in check_limits():
            log.warning(message.msg, extra={"hint": message.hint})
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if others:
            log.warning("threads were started that no worker has", extra={"names": others})
        connections.close_all()  # otherwise the workers would inherit the connections
        gc.freeze()  # the collector would write to the memory that the workers share, and so copy it
        Server().run()
