"""The parent process: gunicorn's arbiter with a drain period before it stops."""

import signal
import sys
import time
from typing import Any

import gunicorn.arbiter
import gunicorn.glogging
from django.conf import settings

from ags.server import worker
from ags.server.logs import JSONFormatter, TextFormatter


class Logger(gunicorn.glogging.Logger):
    """The log of the parent process, in the format of AGS. Workers log with Django's settings."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JSONFormatter())


class Arbiter(gunicorn.arbiter.Arbiter):
    def handle_term(self) -> None:
        """Stop after AGS_DRAIN_SECONDS; /readyz fails until then, so that load balancers send no requests."""
        worker.stop_flag[0] = 1
        deadline = time.monotonic() + settings.AGS_DRAIN_SECONDS
        while self.WORKERS and (remaining := deadline - time.monotonic()) > 0:
            if {signal.SIGINT, signal.SIGQUIT} & set(self.wait_for_signals(remaining)):
                self.handle_quit()
            self.reap_workers()
        super().handle_term()

    def stop(self, graceful: bool = True) -> None:
        worker.stop_flag[0] = 1
        super().stop(graceful)
