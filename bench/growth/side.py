"""One of the two servers that are compared, each with a database of its own, and what works beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psycopg
import yaml

from bench import load, machine
from bench.postgresql import PostgreSQL
from bench.systems import ROOT, Running, ags, free_port, process

COMPANION = "ags-bench-companion"
"""By which PostgreSQL knows the connections of what works beside a server."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server of AGS that runs, with its database and the environment that its commands need."""

    name: str
    running: Running
    database: str
    settings: Mapping[str, str] = field(repr=False)

    def workers(self) -> list[int]:
        """Return its processes that answer requests, all but the first."""
        return machine.tree(self.running.pid)[1:]

    def memory(self) -> dict[str, int]:
        """Return the bytes of the process that holds most: `resident`, and `own`."""
        each = [machine.memory(pid) for pid in self.workers()]
        return {kind: max(held[kind] for held in each) for kind in ("resident", "own")}

    def sql(self, statement: str, **values: Any) -> Any:
        """Run a statement on its database; return the rows, where it yields any."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def prepared(database: PostgreSQL, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Make a database with the tenant of all benchmarks; take it away at the end."""
    address = database.create(name)
    settings = ags.environment(address, free_port())
    ags.apply(settings, ags.configuration())
    try:
        yield address, settings
    finally:
        with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def served(name: str, address: str, settings: Mapping[str, str]) -> Iterator[Side]:
    """Serve it, as `make serve` does."""
    port = free_port()
    words = [sys.executable, "manage.py", "serve"]
    bound = {**settings, "AGS_BIND": f"127.0.0.1:{port}"}
    with process(words, bound, port) as running:
        try:
            yield Side(name, running, address, settings)
        except load.Wrong:
            _show_errors(port)
            raise


def _show_errors(port: int) -> None:
    """Print what the server has said of errors, before its log is taken away."""
    said = Path(f"/tmp/ags-bench-{port}.log").read_text().splitlines()  # noqa: S108 - of bench.systems.process
    print("\n".join([line for line in said if '"ERROR"' in line][-3:]))


def ready_after(address: str, settings: Mapping[str, str]) -> float:
    """Start a server; return the seconds until it is ready for the first time."""
    began = time.perf_counter()
    with served("ready", address, settings) as side:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{side.running.port}/readyz", timeout=5):
                    return time.perf_counter() - began
            except urllib.error.HTTPError:
                time.sleep(0.02)


class Ended(Exception):
    """What works beside a server has nothing left to do."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A process that works on the same database, and is held still while the other side is measured."""

    process: subprocess.Popen[str]
    database: PostgreSQL

    @property
    def said(self) -> IO[str]:
        """Where what it says can be read."""
        assert self.process.stdout is not None  # noqa: S101 - it is started so
        return self.process.stdout

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let it work. Raises `Ended`."""
        if self.process.poll() is not None:
            raise Ended(f"{self.process.args!r} ended with {self.process.returncode}")
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def connections(self) -> list[int]:
        """Return the processes of PostgreSQL that work for it."""
        with psycopg.connect(self.database.url("postgres")) as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", [COMPANION]
            ).fetchall()
        return [pid for (pid,) in rows]


@contextmanager
def companion(side: Side, database: PostgreSQL, *words: str) -> Iterator[Companion]:
    """Start it, and hold it still until it is let to work; end it if it has not ended."""
    running = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **side.settings, "PGAPPNAME": COMPANION},
        stdout=subprocess.PIPE,
        text=True,
    )
    running.send_signal(signal.SIGSTOP)
    try:
        yield Companion(running, database)
    finally:
        running.send_signal(signal.SIGCONT)
        running.terminate()
        running.wait(30)
        if running.stdout:
            running.stdout.close()


def apply(side_settings: Mapping[str, str], wanted: Mapping[str, Any]) -> None:
    """Bring a configuration in, as automation does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wanted.yaml"
        file.write_text(yaml.safe_dump(wanted))
        ags.manage(side_settings, "apply", str(file))
