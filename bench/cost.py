"""What PostgreSQL spends on each session token that is issued: CPU, WAL, flushes, table and indexes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bench import load, machine, rounds
from bench.head_end import HeadEnd, conversations, requests
from bench.postgresql import PostgreSQL
from bench.systems import ags, free_port, process

CONNECTIONS = 16
A_TIME = 20_000
"""Requests that are signed beforehand, and then sent."""

_TABLE = "ags_sessions_sessiontoken"

_SIZES = """
SELECT c.relname AS name, pg_relation_size(c.oid) AS bytes,
       (SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indexrelid = c.oid) AS definition
  FROM pg_class c
 WHERE c.oid = %(table)s::regclass
    OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = %(table)s::regclass)
 ORDER BY c.relkind DESC, c.relname
"""

# PostgreSQL 18 counts writes and flushes of the WAL elsewhere than the versions before it.
_WAL = {
    False: """
SELECT wal_records, wal_fpi, wal_bytes, wal_write AS writes, wal_sync AS flushes
  FROM pg_stat_wal""",
    True: """
SELECT wal_records, wal_fpi, wal_bytes, io.writes, io.flushes
  FROM pg_stat_wal, (SELECT sum(writes) AS writes, sum(fsyncs) AS flushes
                       FROM pg_stat_io WHERE object = 'wal' AND context = 'normal') io""",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """All of it for one issue. `indexes` has by how much each index grew that it is written to."""

    issues: int
    cpu: float  # µs, with those of checkpoints and autovacuum
    wal_bytes: float
    wal_records: float
    page_images: float
    writes: float
    flushes: float
    table_bytes: float
    indexes: dict[str, float]
    definitions: dict[str, str] = field(repr=False)


def measure(database: PostgreSQL, issues: int, *, jti: bool) -> Cost:
    """Issue so many on an empty table, and count."""
    name = f"cost-{'with' if jti else 'without'}-jti"
    address = database.create(name)
    port = free_port()
    settings = ags.environment(address, port)
    ags.apply(settings, ags.configuration())
    with process([sys.executable, "manage.py", "serve"], settings, port):
        _issue(port, 2000, jti=jti)
        _ask(address, "CHECKPOINT")
        sizes, wal, cpu = _sizes(address), _wal(address), machine.cpu(database.pid)
        for left in range(issues, 0, -A_TIME):
            _issue(port, min(left, A_TIME), jti=jti)
        spent = rounds.spent(cpu, machine.cpu(database.pid))
    # Now that its connections are closed, PostgreSQL has counted all that was done over them.
    records = {name: value - wal[name] for name, value in _wal(address).items()}
    # What a checkpoint writes later is a cost of the issues, too; the CPU of that is not a user's.
    before = machine.cpu(database.pid)
    _ask(address, "CHECKPOINT")
    spent += rounds.spent(before, machine.cpu(database.pid))
    grown = {name: (size - sizes[name][0]) / issues for name, (size, _) in _sizes(address).items()}
    table = grown.pop(_TABLE)
    return Cost(
        issues=issues,
        cpu=spent * 1e6 / issues,
        wal_bytes=records["wal_bytes"] / issues,
        wal_records=records["wal_records"] / issues,
        page_images=records["wal_fpi"] / issues,
        writes=records["writes"] / issues,
        flushes=records["flushes"] / issues,
        table_bytes=table,
        indexes={name: bytes_ for name, bytes_ in grown.items() if bytes_ > 0},
        definitions={name: definition for name, (_, definition) in sizes.items() if definition},
    )


def _issue(port: int, number: int, *, jti: bool) -> None:
    ready = requests([HeadEnd()], number, jti=jti)
    load.run(port, conversations(ready, CONNECTIONS), 600)


def _sizes(address: str) -> dict[str, tuple[int, str]]:
    return {row["name"]: (row["bytes"], row["definition"]) for row in _ask(address, _SIZES, table=_TABLE)}


def _wal(address: str) -> dict[str, float]:
    with psycopg.connect(address) as connection:
        statement = _WAL[connection.info.server_version >= 180000]
    return {name: float(value or 0) for name, value in _ask(address, statement)[0].items()}


def _ask(address: str, statement: str, **values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
