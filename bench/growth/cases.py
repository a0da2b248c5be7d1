"""The cases that are compared with a server with small tables: one for each kind of growth."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench import load
from bench.growth import populate, rotate_key
from bench.growth.side import Companion, Side, companion, prepare_database, serve
from bench.head_end import HeadEnd, conversations, requests
from bench.postgresql import PostgreSQL

CONNECTIONS = 16
_DEAD = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'ags_sessions_sessiontoken'"


@dataclass(slots=True)
class Case:
    """A server with large tables. Each round sends it the requests of `ready`, within `during`.

    `excluded` returns the processes of PostgreSQL that do not work for it. `facts` are printed and written.
    """

    name: str
    side: Side
    ready: Callable[[int], Iterable[bytes]]
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    excluded: Callable[[], Collection[int]] = tuple
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, side: Side, head_ends: Sequence[HeadEnd] = (HeadEnd(),), **more: Any) -> Case:
        """Return a case with requests of random head-ends, after a warm-up with all of them."""
        warm_up(side, head_ends)
        return cls(name, side, lambda number: requests(head_ends, number, jti=True), **more)


Cases = Generator[Case, None, None]


def warm_up(side: Side, head_ends: Sequence[HeadEnd] = (HeadEnd(),)) -> None:
    """Send requests until every process has read every tenant."""
    number = max(2000, 20 * len({head_end.tenant for head_end in head_ends}))
    load.run(side.running.port, conversations(requests(head_ends, number, jti=True), CONNECTIONS), 600)


def many_keys(database: PostgreSQL, options: Namespace) -> Cases:
    """One tenant has many keys."""
    with prepare_database(database, "keys") as (address, settings):
        head_ends = populate.many_keys(settings, options.many_keys)
        with serve("keys", address, settings) as side:
            yield Case.of(f"{options.many_keys} keys of the tenant", side, head_ends)


def many_tenants(database: PostgreSQL, options: Namespace) -> Cases:
    """There are many tenants, with requests for all of them."""
    with prepare_database(database, "tenants") as (address, settings):
        head_ends = populate.many_tenants(settings, options.tenants, options.services, options.keys)
        with serve("tenants", address, settings) as side:
            name = f"{options.tenants:,} tenants of {options.services} services and {options.keys} keys"
            yield Case.of(name, side, head_ends)


def rotation(database: PostgreSQL, _options: Namespace) -> Cases:
    """A key is rotated."""
    with (
        prepare_database(database, "rotation") as (address, settings),
        serve("rotation", address, settings) as side,
    ):
        warm_up(side)
        with companion(side, database, "-m", "bench.growth.rotate_key") as companion_process:
            signer = _Signer(companion_process)
            case = Case(
                "while a key rotates", side, signer.ready, signer.resumed, companion_process.connections
            )
            yield case
            case.facts["keys_activated"] = signer.active


def many_rows(database: PostgreSQL, options: Namespace) -> Cases:
    """There are many rows; then the expired ones are purged."""
    with prepare_database(database, "rows") as (address, settings):
        populate.fill(address, options.dead, options.living)
        with serve("rows", address, settings) as side:
            rows = f"{options.dead:,} expired and {options.living:,} valid rows"
            yield Case.of(rows, side, facts=_sizes(side))
            side.sql("CHECKPOINT")
            yield Case.of(f"{rows}, after a checkpoint", side)
            with companion(side, database, "manage.py", "purge") as companion_process:
                purge = _Purge(side, companion_process)
                case = Case.of(
                    "while purge runs",
                    side,
                    during=purge.resumed,
                    excluded=companion_process.connections,
                    facts=purge.facts,
                )
                purge.begin()
                yield case


CASES = {"keys": many_keys, "rotation": rotation, "tenants": many_tenants, "rows": many_rows}


def _sizes(side: Side) -> dict[str, Any]:
    tables = side.sql("SELECT pg_table_size(t), pg_indexes_size(t) FROM (VALUES (%(t)s::regclass)) v(t)",
                      t="ags_sessions_sessiontoken")  # fmt: skip
    return {"table_bytes": tables[0][0], "index_bytes": tables[0][1]}


class _Purge:
    """`manage.py purge`, and the number of rows that it deletes while it runs."""

    def __init__(self, side: Side, companion_process: Companion) -> None:
        self.side, self.companion_process = side, companion_process
        self.facts: dict[str, Any] = {"deleted": 0, "seconds": 0.0, "per_second": 0.0}

    def begin(self) -> None:
        """Let it start, so that no round waits for that."""
        before = self._deleted()
        with self.companion_process.resumed():
            while self._deleted() == before:
                time.sleep(0.1)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Let it run within the block."""
        before, began = self._deleted(), time.perf_counter()
        with self.companion_process.resumed():
            yield
        self.facts["seconds"] += time.perf_counter() - began
        time.sleep(1.2)  # statistics of a connection appear a second later
        self.facts["deleted"] += self._deleted() - before
        self.facts["per_second"] = self.facts["deleted"] / self.facts["seconds"]

    def _deleted(self) -> int:
        return int(self.side.sql(_DEAD)[0][0])


class _Signer:
    """The head-end of a tenant whose key is rotated: it signs with the active key."""

    def __init__(self, companion_process: Companion) -> None:
        self.companion_process = companion_process
        self.active = -1
        threading.Thread(target=self._listen, daemon=True).start()
        with companion_process.resumed():
            while self.active < 1:  # one key is active, and one is retiring
                time.sleep(0.1)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Let the key be rotated within the block."""
        with self.companion_process.resumed():
            yield

    def ready(self, number: int) -> Iterator[bytes]:
        """Sign requests with each key that may become active in a round; yield those of the active one."""
        coming = range(self.active, self.active + 10)
        each = number // 4  # more than a step needs
        signed = {key: requests([_head_end_with(key)], each, jti=True) for key in coming}
        return self._give_out(signed)

    def _give_out(self, signed: dict[int, list[bytes]]) -> Iterator[bytes]:
        while True:
            left = signed.get(self.active)
            yield left.pop() if left else _head_end_with(self.active).request(jti=True)

    def _listen(self) -> None:
        for line in self.companion_process.output:
            self.active = int(line)


def _head_end_with(key: int) -> HeadEnd:
    return HeadEnd(kid=rotate_key.kid(key))
