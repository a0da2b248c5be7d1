"""Two gateways on a PostgreSQL of their own, behind HAProxy as it comes."""

from __future__ import annotations

import csv
import os
import re
import resource
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from ags.sessions.tokens.opaque import token_hashes
from bench import load
from bench.systems import asking
from tests.faults.traffic import Samples, health_probes, open_loop_load, timer, traffic
from tests.support.markers import find_program
from tests.support.server import Client, ServerProcess
from tests.support.upstream.process import accepts_connections, reserved_port, run_process
from tests.support.upstream.redis_server import RedisServer, redis_server
from tests.support.waiting import wait_until

WORKERS = 2
"""Of each gateway."""

CONNECTIONS, SECONDS = 16, 4.0
"""Of the closed loop that measures what the machine carries."""

HAPROXY = """
global
    stats socket {folder}/stats
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
frontend api
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /readyz
"""
"""The timeouts are those of Debian's file; all else that matters is HAProxy's default."""

STORED = """
SELECT count(*) FROM ags_sessions_sessiontoken
  JOIN unnest(%s::bytea[], %s::text[]) AS acknowledged (token_hash, correlation_id)
 USING (token_hash, correlation_id)
"""

LAST_EVENT = "SELECT coalesce(max(id), 0) FROM ags_sessions_event"
STORED_REFUSALS = (
    "SELECT count(*) FROM ags_sessions_event WHERE id > %s AND kind = 'refused' GROUP BY client_address"
)
OMITTED_REFUSALS = (
    "SELECT coalesce(sum((details->>'number')::int), 0) FROM ags_sessions_event"
    " WHERE id > %s AND kind = 'omitted'"
)

OMITTED_METRIC = re.compile(r"^ags_omitted_refusals_total (\S+)$", re.MULTILINE)


class Gateway(ServerProcess):
    """A gateway that may be stopped and started again on its port. `operations`: its port for metrics."""

    def __init__(self, operations: int, **changes: str) -> None:
        super().__init__(AGS_OPERATIONS_BIND=f"127.0.0.1:{operations}", **changes)
        self.operations = operations

    def restart(self) -> int:
        """Stop it as an operator does, start it at once, and return the exit status."""
        self.terminate()
        status = self.wait()
        self.start_again()
        return status

    def start_again(self) -> None:
        """Start it once more, after its end."""
        self._log.unlink()
        self.start()

    def reload(self) -> None:
        """Have new workers take the place of the old ones, and wait until they have."""
        old = set(self.workers())
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: not old & set(self.workers()), "the old workers stay")

    def kill_worker(self, worker: int) -> None:
        """Kill it, and wait until another has taken its place."""
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(set(self.workers()) - {worker}) == WORKERS, "no new worker")

    def limit_files(self, number: int) -> None:
        """Have new workers take the place of the old ones that may open so many files."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (number, number))
        self.reload()

    def count_omitted_refusals(self) -> int:
        """Return how many refusals its metric counts that it has not stored, since its start."""
        operations = Client(self.operations)
        found = OMITTED_METRIC.search(operations.get("/metrics").content.decode())
        operations.close()
        assert found
        return int(float(found[1]))

    def resident(self) -> int:
        """Return the bytes of memory that its workers hold, 0 while one comes or goes."""
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            return sum(psutil.Process(pid).memory_info().rss for pid in self.workers())
        return 0

    def __exit__(self, *_: object) -> None:
        self.kill()


@dataclass
class Deployment:
    """What a row plays on: `proxy` is HAProxy's port, `rate` the good requests per second."""

    database: str
    gateways: list[Gateway]
    proxy: int
    folder: Path
    redis: RedisServer | None
    rate: float = 0.0
    clients: int = 1000
    rounds: int = 5
    grants: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ports(self) -> list[int]:
        """Those of the gateways."""
        return [gateway.port for gateway in self.gateways]

    @contextmanager
    def traffic(self, ports: list[int], **more: tuple[Any, ...]) -> Iterator[dict[str, Samples]]:
        """Send good requests to these ports, look after the gateways, and send what else is named."""
        more["good"] = (open_loop_load, ports, self.rate, asking.get_session_token)
        samples: dict[str, Samples] = {}
        try:
            with traffic(probe=(health_probes, self.ports), timer=(timer,), **more) as samples:
                yield samples
        finally:
            self.grants += [one.grant for kind in samples.values() for one in kind if one.grant]

    def query(self, statement: LiteralString, *parameters: Any) -> list[int]:
        """Return the first column of the rows of a statement."""
        with psycopg.connect(self.database) as connection:
            return [row[0] for row in connection.execute(statement, parameters or None)]

    def count_lost_grants(self) -> int:
        """Return how many acknowledged tokens are not stored with the correlation ID of their request."""
        hashes = [token_hashes(token)[0] for token, _ in self.grants]
        (stored,) = self.query(STORED, hashes, [correlation_id for _, correlation_id in self.grants])
        return len(hashes) - stored

    def resident(self) -> list[int]:
        """Return for each gateway the bytes of memory that its workers hold."""
        return [gateway.resident() for gateway in self.gateways]

    def count_logged(self, text: str) -> int:
        """Return how often the logs of the gateways contain a text."""
        return sum(gateway.log.count(text) for gateway in self.gateways)

    def is_balanced(self) -> bool:
        """Whether HAProxy has all gateways in service."""
        with socket.socket(socket.AF_UNIX) as wire:
            if wire.connect_ex(str(self.folder / "stats")):
                return False  # HAProxy is not up yet
            wire.sendall(b"show stat\n")
            table = b"".join(iter(lambda: wire.recv(65536), b"")).decode().removeprefix("# ")
        states = {row["svname"]: row["status"] for row in csv.DictReader(table.splitlines())}
        return all(states[f"gateway{port}"] == "UP" for port in self.ports)

    def measure_capacity(self) -> float:
        """Return how many requests the machine answers in a second, over HAProxy."""
        for seconds in (1.0, SECONDS):  # the first warms up
            requests = iter([asking.get_session_token() for _ in range(int(seconds * 6000))])
            answered = load.run(self.proxy, [asking.head_end(requests) for _ in range(CONNECTIONS)], seconds)
        return answered.per_second


@contextmanager
def _haproxy(ports: list[int], folder: Path) -> Iterator[int]:
    with reserved_port() as port:
        servers = [f"    server gateway{one} 127.0.0.1:{one} check\n" for one in ports]
        file = folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(folder=folder, port=port) + "".join(servers))
        command = [str(find_program("haproxy")), "-db", "-f", str(file)]
        with run_process(lambda: command, folder / "haproxy.log", lambda: accepts_connections(port)):
            yield port


@contextmanager
def deploy(
    database: str, environment: dict[str, str], with_redis: bool = False, **options: Any
) -> Iterator[Deployment]:
    """Start gateways and HAProxy, and Redis for their limits if that is wanted."""
    common = {
        "DATABASE_URL": database,
        "AGS_WORKERS": str(WORKERS),
        "AGS_TRUSTED_PROXIES": "1",
        "AGS_DRAIN_SECONDS": "",  # the default, which the tests change
    }
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="ags-faults-")))
        redis = held.enter_context(redis_server(folder)) if with_redis else None
        if redis:
            common["AGS_REDIS_URL"] = redis.url
        operations = [held.enter_context(reserved_port()) for _ in range(2)]
        gateways = [held.enter_context(Gateway(port, **{**common, **environment})) for port in operations]
        proxy = held.enter_context(_haproxy([one.port for one in gateways], folder))
        deployment = Deployment(database, gateways, proxy, folder, redis, **options)
        wait_until(deployment.is_balanced, "HAProxy does not have both gateways in service")
        yield deployment
