"""A worker process: one event loop, which accepts connections and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import mmap
import os
import resource
import signal
import socket
import sys
from collections import Counter
from http import HTTPStatus
from typing import Any

import uvloop
from django.conf import settings
from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from ags.environment import cpus
from ags.server.connection import Connection

TICK = 0.5
"""Seconds between two looks at what has waited too long."""

EXPIRED_AT_ONCE = 20
"""Connections that are ended before others are served. Where there are more, the next look is soon."""

GIVE_WAY = 0.001
"""Seconds for which a worker leaves a new connection to one that has fewer."""

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
NOT_ACCEPTING = 2**31 - 1

connections_by_slot = memoryview(mmap.mmap(-1, 4 * SLOTS)).cast("i")
"""Open connections of each worker. All processes see it: it is mapped before they are forked."""

stopping = mmap.mmap(-1, 1)
"""One byte, set once the whole server is asked to stop."""

for _slot in range(SLOTS):
    connections_by_slot[_slot] = NOT_ACCEPTING

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
        self.accepting: set[asyncio.Task[Any]] = set()
        self.buffered = self.dropped = 0

    @property
    def is_stopping(self) -> bool:
        """Whether each response is the last of its connection."""
        return bool(stopping[0]) or not self.alive

    @staticmethod
    def extensions() -> dict[str, Any]:
        """Return what the application learns of the server: bodies are whole, and perhaps that it stops."""
        return {"ags.buffered": {}, "ags.stopping": {}} if stopping[0] else {"ags.buffered": {}}

    @property
    def is_orphan(self) -> bool:
        """Whether the parent has gone."""
        return bool(os.getppid() != self.ppid)

    # How gunicorn starts it

    def init_process(self) -> None:
        """Prepare the process, and run it."""
        if self.cpu is not None:
            with contextlib.suppress(OSError):  # where a sandbox forbids it, the system chooses
                os.sched_setaffinity(0, {self.cpu})
        self.limit = _limit_connections()
        super().init_process()

    def init_signals(self) -> None:
        """Drop the handlers of the parent: the loop has its own."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGABRT, self.handle_abort)  # of a process that hangs: no core with its keys

    def load_wsgi(self) -> None:
        """Load the application, which stays: the garbage collector need not look at it again."""
        self.application = self.app.wsgi()
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serve until a signal stops it."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())
        if self.is_orphan:
            os._exit(0)  # else Python waits for each thread, and a new server for the port

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        for number in STOPS:
            self.loop.add_signal_handler(number, self._stop)
        self.loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        await self.application.start()
        self._publish_count()
        for listener in self.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.loop.add_reader(listener, self._accept_in_turn, listener)
        while self.alive and not self.is_orphan:
            expired = self._tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), 0.01 if expired == EXPIRED_AT_ONCE else TICK)
        await self._drain()
        await self.application.stop()

    def _stop(self) -> None:
        self.alive = False
        self.stopped.set()

    # Connections

    def _accept_in_turn(self, listener: Any) -> None:
        """Accept a connection. A worker that has more than another leaves it a moment to do so."""
        if self._count() <= min(connections_by_slot):
            self._accept(listener)
        else:
            self.loop.remove_reader(listener)
            self.loop.call_later(GIVE_WAY, self._accept_late, listener)

    def _accept_late(self, listener: Any) -> None:
        if self.alive:
            self.loop.add_reader(listener, self._accept_in_turn, listener)
            at_most = 1 + self._count() // 8  # few while they decide how evenly the work is spread
            while at_most and self._accept(listener):
                at_most -= 1

    def _accept(self, listener: Any) -> bool:
        """Accept a connection; return whether another one may be there."""
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                return True
            # The system is out of file descriptors or memory: at once, it would refuse again.
            self._drop_oldest()
            self.loop.remove_reader(listener)
            self.loop.call_later(TICK, self._accept_late, listener)
            return False
        if self._count() >= self.limit and not self._drop_oldest():
            client.close()
            return True
        task = self.loop.create_task(self._connect(client))
        self.accepting.add(task)
        task.add_done_callback(self.accepting.discard)
        self._publish_count()
        return True

    async def _connect(self, client: Any) -> None:
        client.setblocking(False)
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), client)
        except OSError:  # it has gone already
            client.close()

    def add(self, connection: Connection) -> None:
        """Note a connection."""
        self.connections.add(connection)
        self._publish_count()

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.remove(connection)
        self._publish_count()

    def _count(self) -> int:
        return len(self.connections) + len(self.accepting)

    def _publish_count(self) -> None:
        connections_by_slot[self.slot] = self._count() if self.alive else NOT_ACCEPTING

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

    def _tick(self) -> int:
        """Tell gunicorn that the process lives; end what has waited too long, and return how many."""
        self.notify()
        now = self.loop.time()
        expired = [one for one in self.connections if one.deadline <= now][:EXPIRED_AT_ONCE]
        for connection in expired:
            connection.expire()
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
        return len(expired)

    # The end

    async def _drain(self) -> None:
        """Accept what has come, answer requests that are on their way, and close what is idle."""
        self.alive = False
        self._publish_count()
        for listener in self.sockets:
            self.loop.remove_reader(listener)
            while self._accept(listener):
                pass
            listener.close()
        began = self.loop.time()
        limit = 1 if self.is_orphan else self.cfg.graceful_timeout - 1
        while (self.connections or self.accepting) and (waited := self.loop.time() - began) < limit:
            # Where only this process ends, no balancer knows of it.
            if self.is_orphan or waited > (IDLE_GRACE if stopping[0] else settings.AGS_DRAIN_SECONDS):
                for connection in [one for one in self.connections if one.is_idle]:
                    connection.finish()
            self._tick()
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.transport.abort()


def _limit_connections() -> int:
    """Have the system allow open files; return how many connections they allow."""
    wanted = 2 * CONNECTIONS + RESERVED_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < wanted:
        files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
        return max((files - RESERVED_FILES) // 2, 1)
    return CONNECTIONS
