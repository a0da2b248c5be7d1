"""The parent of the workers: gunicorn's, which stops in two steps."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import gunicorn.arbiter
import gunicorn.glogging
from django.conf import settings

from ags.server import worker
from ags.server.logs import JSONLines, ReadableLines


class Log(gunicorn.glogging.Logger):
    """The log of the parent, in the project's lines; that of the workers is Django's."""

    def setup(self, cfg: Any) -> None:
        """Replace gunicorn's own form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JSONLines())


class Arbiter(gunicorn.arbiter.Arbiter):
    """Starts workers, and stops them once nobody sends requests here any more."""

    def handle_term(self) -> None:
        """Serve on for a while, not ready, so that balancers look elsewhere. Then stop."""
        worker.stopping[0] = 1
        ends = time.monotonic() + settings.AGS_DRAIN_SECONDS
        while self.WORKERS and (left := ends - time.monotonic()) > 0:
            if {signal.SIGINT, signal.SIGQUIT} & set(self.wait_for_signals(left)):
                self.handle_quit()
            self.reap_workers()
        super().handle_term()

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers."""
        worker.stopping[0] = 1
        super().stop(graceful)
