"""The cost of issuing a session token in PostgreSQL: CPU, WAL, flushes, and growth of table and indexes."""

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
BATCH_SIZE = 20_000
"""Requests that are signed before they are sent."""

_TABLE = "ags_sessions_sessiontoken"

_SIZES = """
SELECT c.relname AS name, pg_relation_size(c.oid) AS bytes,
       (SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indexrelid = c.oid) AS definition
  FROM pg_class c
 WHERE c.oid = %(table)s::regclass
    OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = %(table)s::regclass)
 ORDER BY c.relkind DESC, c.relname
"""

# PostgreSQL 18 has the counters of writes and flushes of the WAL in another view.
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
    """The cost of one token. `indexes` has the growth in bytes of each index that is written."""

    issues: int
    cpu: float  # µs, including checkpoints and autovacuum
    wal_bytes: float
    wal_records: float
    page_images: float
    writes: float
    flushes: float
    table_bytes: float
    indexes: dict[str, float]
    definitions: dict[str, str] = field(repr=False)


def measure(database: PostgreSQL, issues: int, *, jti: bool) -> Cost:
    """Issue `issues` tokens on an empty table, and return the cost of one."""
    name = f"cost-{'with' if jti else 'without'}-jti"
    address = database.create(name)
    port = free_port()
    settings = ags.environment(address, port)
    ags.apply(settings, ags.configuration())
    with process([sys.executable, "manage.py", "serve"], settings, port):
        _issue(port, 2000, jti=jti)
        _query(address, "CHECKPOINT")
        sizes, wal, cpu = _sizes(address), _wal(address), machine.cpu(database.pid)
        for left in range(issues, 0, -BATCH_SIZE):
            _issue(port, min(left, BATCH_SIZE), jti=jti)
        spent = rounds.cpu_used(cpu, machine.cpu(database.pid))
    # PostgreSQL counts the work of a connection completely only once it is closed.
    records = {name: value - wal[name] for name, value in _wal(address).items()}
    # The writes of a later checkpoint are caused by the tokens, too.
    before = machine.cpu(database.pid)
    _query(address, "CHECKPOINT")
    spent += rounds.cpu_used(before, machine.cpu(database.pid))
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
    return {row["name"]: (row["bytes"], row["definition"]) for row in _query(address, _SIZES, table=_TABLE)}


def _wal(address: str) -> dict[str, float]:
    with psycopg.connect(address) as connection:
        statement = _WAL[connection.info.server_version >= 180000]
    return {name: float(value or 0) for name, value in _query(address, statement)[0].items()}


def _query(address: str, statement: str, **values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
