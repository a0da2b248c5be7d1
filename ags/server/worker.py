"""A worker process: one event loop that accepts connections and closes them at shutdown."""

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import resource
import signal
import socket
import sys
from collections import Counter
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import uvloop
from django.conf import settings
from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from ags.env import available_cpus
from ags.server import shared_counter
from ags.server.connection import Connection
from ags.server.load import load
from providers.contract import current_time

TICK = 0.1
"""Seconds between two checks for expired connections."""

ACCEPT_DELAY = 0.001
"""Seconds for which a worker delays accept(), so that a worker with fewer connections accepts instead."""

ACCEPT_DELAY_MAX_CONNECTIONS = 128
"""A worker with this many connections does not delay: the load is even enough without it."""

MAX_CONNECTIONS = 4096
"""Open connections of a process."""

RESERVED_FILES = 128
"""File descriptors of a process besides two for each connection (its socket, and a file that is sent)."""

IDLE_GRACE = 1.0
"""Seconds for which idle connections stay open after the last accept(): a request may be in transit."""

BUFFER_LIMIT = 32 * 1024 * 1024
"""Maximum number of bytes of request bodies that a process buffers."""

SEND_BUFFER = 32 * 1024
"""SO_SNDBUF in bytes, for clients that do not read. The default grows up to 4 MB."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which a computing thread must yield the GIL to the event loop. Python's default is 0.005."""

STOP_SIGNALS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}

WORKER_SLOTS = shared_counter.SLOTS

connections_by_slot = memoryview(mmap.mmap(-1, 4 * WORKER_SLOTS)).cast("i")
"""1 + the number of open connections of each accepting worker, 0 for others.

Shared memory: mapped before the workers are forked.
"""

stop_flag = mmap.mmap(-1, 1)
"""One byte in shared memory, set when the whole server begins to stop."""

log = logging.getLogger("ags.server")

# A new worker has the signal handlers of its parent. They would discard a stop signal, and the parent would
# kill the worker after the graceful timeout. So stop signals are blocked until the worker has its own
# handlers.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS),
)


def log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio reports. Its own handler logs the message of the exception and the objects."""
    log.error(context["message"], exc_info=context.get("exception"))


class Worker(base.Worker):
    """A gunicorn worker. If there is one for each CPU, each is pinned to its CPU."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Runs in the parent, so Arbiter.WORKERS contains the other workers.
        others = Arbiter.WORKERS.values()
        self.slot = min(set(range(WORKER_SLOTS)) - {other.slot for other in others})
        workers_by_cpu, cpus = Counter(other.cpu for other in others), available_cpus()
        self.cpu = min(cpus, key=workers_by_cpu.__getitem__) if len(cpus) == self.cfg.workers else None
        self.connections: set[Connection] = set()
        self.accepting: set[asyncio.Task[None]] = set()
        self.count = self.buffered = self.dropped = 0

    @property
    def is_stopping(self) -> bool:
        """True if connections are closed after their current response."""
        return bool(stop_flag[0]) or not self.alive

    @staticmethod
    def extensions() -> dict[str, Any]:
        """Return the ASGI extensions: bodies are complete, and the server may be stopping."""
        return {"ags.buffered": {}, "ags.stopping": {}} if stop_flag[0] else {"ags.buffered": {}}

    # Called by gunicorn

    handle_quit = base.Worker.handle_exit  # as on SIGTERM; only the parent uses a shorter timeout

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if self.cpu is not None:
            with contextlib.suppress(OSError):  # not allowed in some sandboxes
                os.sched_setaffinity(0, {self.cpu})
        shared_counter.current_slot = self.slot
        load.connections = self.connections
        self.limit = _limit_connections()
        self.application = self.wsgi
        gc.collect()
        gc.freeze()  # the garbage collector need not scan the application again
        sys.setswitchinterval(SWITCH_INTERVAL)
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(log_loop_error)
        await self.application.start()
        self._count_connections(0)
        for listener in self.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.loop.add_reader(listener, self._accept_or_delay, listener)
        while self.alive:
            await self._tick()
        await self._drain()
        await self.application.stop()

    def _accept_or_delay(self, listener: Any) -> None:
        if min(filter(None, connections_by_slot), default=0) <= self.count < ACCEPT_DELAY_MAX_CONNECTIONS:
            self._delay_accept(listener, ACCEPT_DELAY)
        else:
            self._accept(listener)

    def _delay_accept(self, listener: Any, seconds: float) -> None:
        self.loop.remove_reader(listener)
        self.loop.call_later(seconds, self._accept_delayed, listener)

    def _accept_delayed(self, listener: Any) -> None:
        if self.alive:
            self.loop.add_reader(listener, self._accept_or_delay, listener)
            self._accept(listener)

    def _accept(self, listener: Any) -> bool:
        """Return False if there may be no other connection."""
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError:
            # Out of file descriptors or memory; an immediate retry would fail, too.
            self._drop_oldest()
            self._delay_accept(listener, TICK)
            return False
        if self.count >= self.limit and not self._drop_oldest():
            client.close()
            return True
        self._count_connections(1)
        task = self.loop.create_task(self._connect(client))
        self.accepting.add(task)
        task.add_done_callback(self.accepting.discard)
        return True

    async def _connect(self, client: Any) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), client)
        except OSError:  # the client has already disconnected
            client.close()
            self._count_connections(-1)

    def remove(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self._count_connections(-1)

    def _count_connections(self, change: int) -> None:
        self.count += change
        connections_by_slot[self.slot] = 1 + self.count if self.alive else 0

    def free_buffer_space(self, reader: Connection) -> bool:
        """Reject the oldest incomplete bodies. Return False if the caller must reject that of `reader`."""
        while self.buffered > BUFFER_LIMIT:
            self.dropped += 1
            load.dropped += 1
            connections = [c for c in self.connections if c.reading is not None and c.reading.body]
            oldest = min(connections, key=lambda connection: connection.deadline)
            if oldest is reader:
                return False
            oldest.reject(HTTPStatus.SERVICE_UNAVAILABLE)
        return True

    def _drop_oldest(self) -> bool:
        """Abort the oldest idle connection, preferably an unused one. Return False if none is idle."""
        self.dropped += 1
        load.dropped += 1
        idle = [c for c in self.connections if not c.exchanges and not c.transport.is_closing()]
        oldest = min(idle, key=lambda connection: (connection.has_served, connection.deadline), default=None)
        if oldest is not None:
            oldest.transport.abort()
        return oldest is not None

    async def _tick(self) -> None:
        """Notify gunicorn that the process is alive, and expire connections. Takes at least TICK."""
        self.notify()
        self.date = f"date: {formatdate(current_time(), usegmt=True)}\r\n".encode()
        if os.getppid() != self.ppid and not signal.getitimer(signal.ITIMER_REAL)[0]:
            # The parent has exited. SIGALRM ends this process soon, even if a thread blocks.
            signal.alarm(1)
            self.alive = False
        now = self.loop.time()
        for connection in list(self.connections):
            if connection.deadline <= now:
                connection.expire()
                await asyncio.sleep(0)  # let other connections proceed
        if self.dropped:
            log.warning(
                "connections were dropped at a limit of the process",
                extra={
                    "dropped": self.dropped,
                    "connections": len(self.connections),
                    "buffered": self.buffered,
                },
            )
            self.dropped = 0
        await asyncio.sleep(TICK)

    async def _drain(self) -> None:
        self._count_connections(0)
        for listener in self.sockets:
            self.loop.remove_reader(listener)
            while self._accept(listener):
                pass
            listener.close()
        started_at = self.loop.time()
        while self.count and (waited := self.loop.time() - started_at) < self.cfg.graceful_timeout - 1:
            # If only this process stops, load balancers keep using its idle connections.
            if waited > (IDLE_GRACE if stop_flag[0] else settings.AGS_DRAIN_SECONDS):
                for connection in [c for c in self.connections if c.is_idle]:
                    connection.finish()
            await self._tick()
        for connection in list(self.connections):
            connection.transport.abort()


def _limit_connections() -> int:
    """Raise the limit of open files; return the number of connections that it allows."""
    required = 2 * MAX_CONNECTIONS + RESERVED_FILES
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = required if hard_limit == resource.RLIM_INFINITY else min(required, hard_limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard_limit))
    return max((files - RESERVED_FILES) // 2, 1)
