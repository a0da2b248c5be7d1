"""The `gthread` worker of gunicorn, with connections balanced among the processes.

Without that, one of two processes often has eleven of sixteen connections, and limits the throughput of the
system. The results would depend on chance. AGS balances its connections itself (`ags/server/worker.py`).
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn.workers import gthread


class Worker(gthread.ThreadWorker):
    """Accepts a connection later than the processes that have fewer."""

    def accept(self, listener: Any) -> None:
        """Wait in proportion to the number of connections."""
        time.sleep(min(self.nr_conns * 0.000_1, 0.001))
        super().accept(listener)
