"""What is compared with a server that has nearly nothing in its tables: one case for each way to grow."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench import load
from bench.growth import filled, rotating
from bench.growth.side import Companion, Side, companion, prepared, served
from bench.head_end import HeadEnd, conversations, requests
from bench.postgresql import PostgreSQL

CONNECTIONS = 16
_DEAD = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'ags_sessions_sessiontoken'"


@dataclass(slots=True)
class Case:
    """A server that has grown. Each round asks it with `ready`, within `during`.

    `apart` are the processes of PostgreSQL whose CPU is not its own; `told` is what else there is to tell.
    """

    name: str
    side: Side
    ready: Callable[[int], Iterable[bytes]]
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    apart: Callable[[], Collection[int]] = tuple
    told: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, side: Side, head_ends: Sequence[HeadEnd] = (HeadEnd(),), **more: Any) -> Case:
        """Return one that is asked by those head-ends, at random, once they have all been there."""
        warm_up(side, head_ends)
        return cls(name, side, lambda number: requests(head_ends, number, jti=True), **more)


Cases = Generator[Case, None, None]


def warm_up(side: Side, head_ends: Sequence[HeadEnd] = (HeadEnd(),)) -> None:
    """Ask until every process has read every tenant."""
    number = max(2000, 20 * len({head_end.tenant for head_end in head_ends}))
    load.run(side.running.port, conversations(requests(head_ends, number, jti=True), CONNECTIONS), 600)


def many_keys(database: PostgreSQL, options: Namespace) -> Cases:
    """One tenant with many keys."""
    with prepared(database, "keys") as (address, settings):
        head_ends = filled.many_keys(settings, options.many_keys)
        with served("keys", address, settings) as side:
            yield Case.of(f"{options.many_keys} keys of the tenant", side, head_ends)


def many_tenants(database: PostgreSQL, options: Namespace) -> Cases:
    """Many tenants, with requests for all of them."""
    with prepared(database, "tenants") as (address, settings):
        head_ends = filled.many_tenants(settings, options.tenants, options.services, options.keys)
        with served("tenants", address, settings) as side:
            name = f"{options.tenants:,} tenants of {options.services} services and {options.keys} keys"
            yield Case.of(name, side, head_ends)


def rotation(database: PostgreSQL, _options: Namespace) -> Cases:
    """A key rotates."""
    with prepared(database, "rotation") as (address, settings), served("rotation", address, settings) as side:
        warm_up(side)
        with companion(side, database, "-m", "bench.growth.rotating") as beside:
            signer = _Signer(beside)
            case = Case("while a key rotates", side, signer.ready, signer.at_work, beside.connections)
            yield case
            case.told["keys_activated"] = signer.active


def many_rows(database: PostgreSQL, options: Namespace) -> Cases:
    """Many rows; then the same while the dead ones are purged."""
    with prepared(database, "rows") as (address, settings):
        filled.fill(address, options.dead, options.living)
        with served("rows", address, settings) as side:
            rows = f"{options.dead:,} dead and {options.living:,} living rows"
            yield Case.of(rows, side, told=_sizes(side))
            side.sql("CHECKPOINT")
            yield Case.of(f"{rows}, after a checkpoint", side)
            with companion(side, database, "manage.py", "purge") as beside:
                purge = _Purge(side, beside)
                case = Case.of(
                    "while purge runs", side, during=purge.at_work, apart=beside.connections, told=purge.told
                )
                purge.begin()
                yield case


CASES = {"keys": many_keys, "rotation": rotation, "tenants": many_tenants, "rows": many_rows}


def _sizes(side: Side) -> dict[str, Any]:
    tables = side.sql("SELECT pg_table_size(t), pg_indexes_size(t) FROM (VALUES (%(t)s::regclass)) v(t)",
                      t="ags_sessions_sessiontoken")  # fmt: skip
    return {"table_bytes": tables[0][0], "index_bytes": tables[0][1]}


class _Purge:
    """`manage.py purge`, and how much it has deleted while it was let to."""

    def __init__(self, side: Side, beside: Companion) -> None:
        self.side, self.beside = side, beside
        self.told: dict[str, Any] = {"deleted": 0, "seconds": 0.0, "per_second": 0.0}

    def begin(self) -> None:
        """Let it start, so that no round has to wait for that."""
        before = self._deleted()
        with self.beside.at_work():
            while self._deleted() == before:
                time.sleep(0.1)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let it delete."""
        before, began = self._deleted(), time.perf_counter()
        with self.beside.at_work():
            yield
        self.told["seconds"] += time.perf_counter() - began
        time.sleep(1.2)  # PostgreSQL tells what a connection did a second later
        self.told["deleted"] += self._deleted() - before
        self.told["per_second"] = self.told["deleted"] / self.told["seconds"]

    def _deleted(self) -> int:
        return int(self.side.sql(_DEAD)[0][0])


class _Signer:
    """The head-end of a tenant whose key rotates: it signs with the one that is active."""

    def __init__(self, beside: Companion) -> None:
        self.beside = beside
        self.active = -1
        threading.Thread(target=self._listen, daemon=True).start()
        with beside.at_work():
            while self.active < 1:  # with one that is active, and one that retires
                time.sleep(0.1)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the key rotate."""
        with self.beside.at_work():
            yield

    def ready(self, number: int) -> Iterator[bytes]:
        """Sign so many requests with each key whose time may come in a round, and give out the right ones."""
        coming = range(self.active, self.active + 10)
        each = number // 4  # more than one step needs
        signed = {key: requests([_with(key)], each, jti=True) for key in coming}
        return self._given_out(signed)

    def _given_out(self, signed: dict[int, list[bytes]]) -> Iterator[bytes]:
        while True:
            left = signed.get(self.active)
            yield left.pop() if left else _with(self.active).request(jti=True)

    def _listen(self) -> None:
        for line in self.beside.said:
            self.active = int(line)


def _with(key: int) -> HeadEnd:
    return HeadEnd(kid=rotating.kid(key))
