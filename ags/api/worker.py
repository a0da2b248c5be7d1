"""The worker of the production server: gunicorn's process of threads, which no client can hold.

Only gunicorn imports this file (`manage.py serve` names it); the application itself knows no server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections import Counter, deque
from typing import Any

import gunicorn.glogging
import gunicorn.util
from gunicorn.arbiter import Arbiter
from gunicorn.workers import gthread

from ags.api.wire import Connection
from ags.environment import cpus
from ags.operations.database import bound_all_statements
from ags.operations.logs import JSONLines, ReadableLines

LINGER = 1.0
"""Seconds in which a client may finish talking after the last answer of a connection."""

GIVE_WAY = 0.000_1
"""Seconds, for each connection that a process has, in which another may take a new one first."""

GIVE_WAY_MOST = 0.001

CPUS = cpus() if hasattr(os, "sched_setaffinity") else []
"""Those on which a process can be kept."""

STOPS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}

# A worker has the handlers of its parent until it has its own: a signal to stop it would be lost, and its
# parent would kill it once the graceful time is over. So such a signal waits.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOPS),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS),
)


class Log(gunicorn.glogging.Logger):
    """The log of the process that minds the workers, in the project's lines; theirs is Django's."""

    def setup(self, cfg: Any) -> None:
        """Replace gunicorn's own form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JSONLines())

    def exception(self, msg: str, *_: Any, **options: Any) -> None:
        """Log a crash without what gunicorn would add: the address of the request."""
        super().exception(msg.partition(" %")[0], **options)


class Worker(gthread.ThreadWorker):
    """A worker process whose database statements are bounded, and whose threads no client can hold.

    Where there is one for each CPU, each stays on its own: of its threads one runs at a time, and costs more
    to wake on another CPU.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # In the process that minds the workers, which knows those that are there.
        taken = Counter(worker.cpu for worker in Arbiter.WORKERS.values())
        self.cpu = min(CPUS, key=taken.__getitem__) if len(CPUS) == self.cfg.workers else None

    def init_process(self) -> None:
        """Prepare the process before it takes requests."""
        if self.cpu is not None:
            with contextlib.suppress(OSError):  # where a sandbox forbids it, the system chooses
                os.sched_setaffinity(0, {self.cpu})
        bound_all_statements()
        self._waiting: deque[Connection] = deque()
        self._places = deque(range(self.cfg.threads - 1))  # for threads that stay with a connection
        # gunicorn looks a setting up some twenty times in each request, by a way that is longer than this.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        super().init_process()

    def init_signals(self) -> None:
        """Take signals, also those that came since the process was forked."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def load_wsgi(self) -> None:
        """Load the application, which stays: the garbage collector need not look at it again."""
        super().load_wsgi()
        gc.collect()
        gc.freeze()

    def accept(self, listener: Any) -> None:
        """Take a connection, after the processes that have fewer."""
        time.sleep(min(self.nr_conns * GIVE_WAY, GIVE_WAY_MOST))
        super().accept(listener)

    def enqueue_req(self, conn: Connection) -> None:
        """Have a connection handled by the next thread that is free."""
        self._waiting.append(conn)
        super().enqueue_req(conn)

    def handle(self, conn: Connection) -> Any:
        """Answer a request, and those that follow it closely; say whether the connection is kept."""
        self._waiting.popleft()
        kept = super().handle(conn)
        while kept is True and self._next_is_here(conn):
            kept = super().handle(conn)
        if kept is False:
            # Closing at once would reset the connection while the client still sends, and lose the answer.
            gunicorn.util.close_graceful(conn.sock, timeout=LINGER, max_drain=1 << 20)
        return kept

    def _next_is_here(self, conn: Connection) -> bool:
        """Wait a moment for the next request, unless another connection waits, or no other thread is free.

        It saves the way over the main loop and another thread, which costs more than a small answer.
        """
        if self._waiting or not self.alive:
            return False
        try:
            place = self._places.pop()
        except IndexError:
            return False
        try:
            return conn.next_is_here()
        finally:
            self._places.append(place)
