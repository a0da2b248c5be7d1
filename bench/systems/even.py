"""gunicorn's worker of threads, which leaves a new connection to the process that has fewer.

Its own takes as many as it gets: of sixteen connections one of two processes often has eleven, and the system
then is as fast as that one. No system here is to be measured by such luck. AGS spreads them itself
(`ags/server/worker.py`).
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn.workers import gthread


class Worker(gthread.ThreadWorker):
    """Takes a connection after the processes that have fewer."""

    def accept(self, listener: Any) -> None:
        """Give the others a moment."""
        time.sleep(min(self.nr_conns * 0.000_1, 0.001))
        super().accept(listener)
