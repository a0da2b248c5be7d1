"""A server that is compared, with a database of its own, and a process that runs at the same time."""

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
"""The application name of the connections of a companion."""


@dataclass(frozen=True, slots=True)
class Side:
    """A running server of AGS, its database, and the environment of its commands."""

    name: str
    running: Running
    database: str
    settings: Mapping[str, str] = field(repr=False)

    def workers(self) -> list[int]:
        """Return its workers: all processes but the first."""
        return machine.tree(self.running.pid)[1:]

    def memory(self) -> dict[str, int]:
        """Return the memory of the largest worker in bytes: `resident`, and `own`."""
        each = [machine.memory(pid) for pid in self.workers()]
        return {kind: max(held[kind] for held in each) for kind in ("resident", "own")}

    def sql(self, statement: str, **values: Any) -> Any:
        """Run a statement on its database; return the rows, if there are any."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def prepare_database(database: PostgreSQL, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Create a database with the tenant of all benchmarks; drop it at the end."""
    address = database.create(name)
    settings = ags.environment(address, free_port())
    ags.apply(settings, ags.configuration())
    try:
        yield address, settings
    finally:
        with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def serve(name: str, address: str, settings: Mapping[str, str]) -> Iterator[Side]:
    """Run a server, as `make serve` does."""
    port = free_port()
    words = [sys.executable, "manage.py", "serve"]
    bound = {**settings, "AGS_BIND": f"127.0.0.1:{port}"}
    with process(words, bound, port) as running:
        try:
            yield Side(name, running, address, settings)
        except load.WrongAnswer:
            _show_errors(port)
            raise


def _show_errors(port: int) -> None:
    """Print the last errors of the server, before its log is deleted."""
    said = Path(f"/tmp/ags-bench-{port}.log").read_text().splitlines()  # noqa: S108 - of bench.systems.process
    print("\n".join([line for line in said if '"ERROR"' in line][-3:]))


def measure_start(address: str, settings: Mapping[str, str]) -> float:
    """Start a server; return the seconds until it is ready."""
    began = time.perf_counter()
    with serve("ready", address, settings) as side:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{side.running.port}/readyz", timeout=5):
                    return time.perf_counter() - began
            except urllib.error.HTTPError:
                time.sleep(0.02)


class CompanionEnded(Exception):
    """The companion has exited."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A process that works on the same database, and is suspended while the other side is measured."""

    process: subprocess.Popen[str]
    database: PostgreSQL

    @property
    def output(self) -> IO[str]:
        """Its standard output."""
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        return self.process.stdout

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Let it run within the block. Raises `CompanionEnded`."""
        if self.process.poll() is not None:
            raise CompanionEnded(f"{self.process.args!r} ended with {self.process.returncode}")
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
    """Start a companion, suspended; terminate it at the end."""
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
    """Apply a configuration, as automation does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wanted.yaml"
        file.write_text(yaml.safe_dump(wanted))
        ags.manage(side_settings, "apply", str(file))
