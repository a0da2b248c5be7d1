"""The asynchronous floor: a minimal ASGI application on the server of AGS (bench/floor_asgi.py)."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import psycopg

from bench import floor_schema
from bench.systems import WORKERS, Running, System, ags, asking, free_port, process


def environment(database: str) -> dict[str, str]:
    """Prepare the database, and return the environment of bench/floor_asgi.py."""
    with psycopg.connect(database) as connection:
        connection.execute(floor_schema.SCHEMA)
    return {
        "DATABASE_URL": database,
        "BENCH_SECRET": base64.b64encode(asking.SECRET).decode(),
        "BENCH_RESOURCE_SERVER": asking.RESOURCE_SERVER,
        "BENCH_RESOURCE_SECRET": asking.RESOURCE_SECRET,
    }


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start the floor."""
    port = free_port()
    words = [sys.executable, "-m", "bench.floor_asgi", f"127.0.0.1:{port}", str(WORKERS)]
    with process(words, environment(database), port) as running:
        yield running


FLOOR = System(
    name="floor",
    version=lambda: ", ".join(
        f"{name} {version(name)}" for name in ("pyjwt", "psycopg", "uvloop", "httptools")
    ),
    start=start,
    work={name: work for name, work in ags.WORK.items() if name != "discovery"},
    rows=(
        "SELECT (SELECT count(*) FROM session_token)"
        " + (SELECT count(*) + coalesce(sum(generation), 0) FROM device)"
    ),
)
