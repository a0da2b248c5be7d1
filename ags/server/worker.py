"""A worker process: one event loop, which accepts connections and ends them in order."""

from __future__ import annotations

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

from ags.env import cpus
from ags.server.connection import Connection

TICK = 0.1
"""Seconds between two looks at what has waited too long."""

GIVE_WAY = 0.001
"""Seconds for which a worker leaves a new connection to one that has fewer."""

MANY = 128
"""Connections of a worker that gives way no longer: there are so many that work is spread evenly enough."""

CONNECTIONS = 4096
"""Open connections of a process."""

RESERVED_FILES = 128
"""File descriptors that a process needs beside two for each connection, which may be sent a file."""

IDLE_GRACE = 1.0
"""Seconds for which a connection is still read once no new one is accepted: a request may be on its way."""

BUFFER_LIMIT = 32 * 1024 * 1024
"""Bytes of bodies that a process holds at most."""

SEND_BUFFER = 32 * 1024
"""Bytes that the system takes for a client that does not read. Left alone, it takes up to 4 MB."""

SWITCH_INTERVAL = 0.0005
"""Seconds for which the event loop waits for a thread that computes. Python's default is 0.005."""

STOPS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}

SLOTS = 1024

connections_by_slot = memoryview(mmap.mmap(-1, 4 * SLOTS)).cast("i")
"""One more than the open connections of each worker that accepts some, else 0.

All processes see it: it is mapped before they are forked.
"""

stopping = mmap.mmap(-1, 1)
"""One byte, set once the whole server is asked to stop."""

log = logging.getLogger("ags.server")

# Until a worker has its own handlers of signals it has those of its parent: a signal to stop would be lost,
# and the parent would kill it once the graceful time is over. So such a signal waits.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOPS),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS),
)


class Worker(base.Worker):
    """A process of gunicorn's. Where there is one for each CPU, each stays on its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # In the parent, which knows the others.
        others = Arbiter.WORKERS.values()
        self.slot = min(set(range(SLOTS)) - {other.slot for other in others})
        taken, available = Counter(other.cpu for other in others), cpus()
        self.cpu = min(available, key=taken.__getitem__) if len(available) == self.cfg.workers else None
        self.connections: set[Connection] = set()
        self.accepting: set[asyncio.Task[None]] = set()
        self.count = self.buffered = self.dropped = 0

    @property
    def is_stopping(self) -> bool:
        """Whether each response is the last of its connection."""
        return bool(stopping[0]) or not self.alive

    @staticmethod
    def extensions() -> dict[str, Any]:
        """Return what the application learns of the server: bodies are whole, and perhaps that it stops."""
        return {"ags.buffered": {}, "ags.stopping": {}} if stopping[0] else {"ags.buffered": {}}

    # How gunicorn starts it

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop as on SIGTERM: it is the parent that waits for less."""
        self.handle_exit(sig, frame)

    def run(self) -> None:
        """Serve until a signal stops it."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        if self.cpu is not None:
            with contextlib.suppress(OSError):  # where a sandbox forbids it, the system chooses
                os.sched_setaffinity(0, {self.cpu})
        self.limit = _limit_connections()
        self.application = self.wsgi
        gc.collect()
        gc.freeze()  # the application stays: the garbage collector need not look at it again
        sys.setswitchinterval(SWITCH_INTERVAL)
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.application.start()
        self._note(0)
        for listener in self.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.loop.add_reader(listener, self._accept_in_turn, listener)
        while self.alive:
            await self._tick()
        await self._drain()
        await self.application.stop()

    # Connections

    def _accept_in_turn(self, listener: Any) -> None:
        """Accept a connection. A worker that has more than another leaves it a moment to do so."""
        if min(filter(None, connections_by_slot), default=0) <= self.count < MANY:
            self._accept_later(listener, GIVE_WAY)
        else:
            self._accept(listener)

    def _accept_later(self, listener: Any, seconds: float) -> None:
        self.loop.remove_reader(listener)
        self.loop.call_later(seconds, self._accept_late, listener)

    def _accept_late(self, listener: Any) -> None:
        if self.alive:
            self.loop.add_reader(listener, self._accept_in_turn, listener)
            self._accept(listener)

    def _accept(self, listener: Any) -> bool:
        """Accept a connection; return whether another one may be there."""
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError:
            # The system is out of file descriptors or memory: at once, it would refuse again.
            self._drop_oldest()
            self._accept_later(listener, TICK)
            return False
        if self.count >= self.limit and not self._drop_oldest():
            client.close()
            return True
        self._note(1)
        task = self.loop.create_task(self._connect(client))
        self.accepting.add(task)
        task.add_done_callback(self.accepting.discard)
        return True

    async def _connect(self, client: Any) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), client)
        except OSError:  # it has gone already
            client.close()
            self._note(-1)

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.remove(connection)
        self._note(-1)

    def _note(self, more: int) -> None:
        """Note that so many more connections are open."""
        self.count += more
        connections_by_slot[self.slot] = 1 + self.count if self.alive else 0

    def make_room(self, reader: Connection) -> bool:
        """Refuse the oldest incomplete bodies while all take too much.

        Return whether there is room then. There is none if that of `reader` is the oldest.
        """
        while self.buffered > BUFFER_LIMIT:
            self.dropped += 1
            bodies = [one for one in self.connections if one.reading is not None and one.reading.body]
            oldest = min(bodies, key=lambda one: one.deadline)
            if oldest is reader:
                return False
            oldest.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        return True

    def _drop_oldest(self) -> bool:
        """Close the oldest idle connection, silent ones first; return whether there is one."""
        self.dropped += 1
        waiting = [one for one in self.connections if not one.exchanges and not one.transport.is_closing()]
        oldest = min(waiting, key=lambda one: (one.has_served, one.deadline), default=None)
        if oldest is not None:
            oldest.transport.abort()
        return oldest is not None

    async def _tick(self) -> None:
        """Tell gunicorn that the process lives, and end what has waited too long. Takes `TICK` at least."""
        self.notify()
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        if os.getppid() != self.ppid and not signal.getitimer(signal.ITIMER_REAL)[0]:
            # The parent has gone: the system ends this process soon, whatever a thread of it is doing.
            signal.alarm(1)
            self.alive = False
        now = self.loop.time()
        for connection in list(self.connections):
            if connection.deadline <= now:
                connection.expire()
                await asyncio.sleep(0)  # others are served in between
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

    # The end

    async def _drain(self) -> None:
        """Accept what has come, answer requests that are on their way, and close what is idle."""
        self._note(0)
        for listener in self.sockets:
            self.loop.remove_reader(listener)
            while self._accept(listener):
                pass
            listener.close()
        began = self.loop.time()
        while self.count and (waited := self.loop.time() - began) < self.cfg.graceful_timeout - 1:
            # Where only this process ends, no balancer knows of it.
            if waited > (IDLE_GRACE if stopping[0] else settings.AGS_DRAIN_SECONDS):
                for connection in [one for one in self.connections if one.is_idle]:
                    connection.finish()
            await self._tick()
        for connection in list(self.connections):
            connection.transport.abort()


def _limit_connections() -> int:
    """Have the system allow open files; return how many connections they allow."""
    wanted = 2 * CONNECTIONS + RESERVED_FILES
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return max((files - RESERVED_FILES) // 2, 1)
