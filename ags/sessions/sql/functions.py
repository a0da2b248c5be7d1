"""What PostgreSQL and SQLite spell differently in the statements that decide. Times are the database's.

A statement gets its values as rows of a table, `g` as a rule: one row for each request.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVarTuple

from django.db import connection

from ags.database import READS, fetch_all
from ags.database.postgresql import PostgreSQL

_Ts = TypeVarTuple("_Ts")

Row = Mapping[str, Any]

_SPELLINGS = {
    "postgresql": {
        "now": "statement_timestamp()",
        "now_plus_seconds": "statement_timestamp() + {} * interval '1 second'",
        "from_epoch": "to_timestamp(({})::double precision)",
        "to_epoch": "extract(epoch from {})::double precision",
        "greatest": "greatest({})",
        "least": "least({})",
        "json": "{}::jsonb",
        "array_element": "({} ->> {}::integer)",
        "lock_rows": "FOR UPDATE OF {}",
        "row_number": "g.row_number",
    },
    "sqlite": {
        # As text in the form in which Django stores a moment there, so that they compare.
        "now": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "now_plus_seconds": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+' || {} || ' seconds')",
        "from_epoch": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {}, 'unixepoch')",
        "to_epoch": "((julianday({}) - 2440587.5) * 86400.0)",
        "greatest": "max({})",
        "least": "min({})",
        "json": "{}",
        "array_element": "json_extract({}, '$[' || {} || ']')",
        "lock_rows": "",  # a transaction that writes locks the database
        "row_number": "1",  # RETURNING knows the table that is changed, and no other
    },
}


@cache
def _vendor() -> str:
    return connection.vendor


def _spell(function: str, *arguments: str) -> str:
    return _SPELLINGS[_vendor()][function].format(*arguments)


def now() -> str:
    """The moment of the statement."""
    return _spell("now")


def now_plus_seconds(expression: str) -> str:
    """The moment so many seconds after that of the statement."""
    return _spell("now_plus_seconds", expression)


def from_epoch(expression: str) -> str:
    """Seconds since the epoch as a moment."""
    return _spell("from_epoch", expression)


def to_epoch(expression: str) -> str:
    """A moment as seconds since the epoch."""
    return _spell("to_epoch", expression)


def greatest(*expressions: str) -> str:
    """The latest of several moments."""
    return _spell("greatest", ", ".join(expressions))


def least(*expressions: str) -> str:
    """The earliest of several moments."""
    return _spell("least", ", ".join(expressions))


def json(expression: str) -> str:
    """Text that holds JSON as JSON."""
    return _spell("json", expression)


def array_element(array: str, index: str) -> str:
    """The string at that index of a JSON array, counted from 0; NULL where the array is shorter."""
    return _spell("array_element", array, index)


def lock_rows(table: str) -> str:
    """At the end of a SELECT: lock its rows of that table, in its order."""
    return _spell("lock_rows", table)


def row_number() -> str:
    """In RETURNING of an UPDATE from `g`: the column `row_number` of its row."""
    return _spell("row_number")


def numbered_params(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """Several values of one kind, each under a name: name_0, name_1 and so on."""
    return {f"{name}_{number}": value for number, value in enumerate(values)}


def numbered_columns(name: str, count: int) -> str:
    """So many of them, as a statement lists them."""
    return ", ".join(f"g.{name}_{number}" for number in range(count))


def cached_sql(write: Callable[[*_Ts], str]) -> Callable[[*_Ts], str]:
    """Put a statement together at its first use only: once for each database and each set of arguments."""

    @cache
    def written(vendor: str, *arguments: *_Ts) -> str:
        return write(*arguments)

    @wraps(write)
    def text(*arguments: *_Ts) -> str:
        return written(_vendor(), *arguments)

    return text


def values_table(**columns: str) -> str:
    """The rows of `values_params` as a table: its columns, each with its type in PostgreSQL.

    It has a column `row_number` more, which counts the rows from 1.
    """
    if _vendor() == "sqlite":
        return f"(SELECT {', '.join(f'%({name})s AS {name}' for name in columns)}, 1 AS row_number)"
    listed = [f"decode({name}, 'hex') AS {name}" if columns[name] == "bytea" else name for name in columns]
    types = [f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in columns.items()]
    # One parameter, and so one plan, for any number of rows. Of a range, the planner expects one row: it uses
    # indexes.
    return f"""(SELECT {", ".join(listed)}, row_number
   FROM ROWS FROM (jsonb_to_recordset(%(rows)s::jsonb) AS ({", ".join(types)})) WITH ORDINALITY
        AS r({", ".join(columns)}, row_number)
  WHERE row_number BETWEEN 1 AND {PostgreSQL.max_batch_size})"""  # noqa: S608 - constants


def values_params(rows: Sequence[Row]) -> Row:
    """Return the parameters of a statement with `values_table`: bytes, moments, and what JSON has.

    An object or an array is a value of a column of type jsonb.
    """
    if _vendor() == "sqlite":
        (row,) = rows
        return {
            name: _encode(value) if isinstance(value, dict | list) else value for name, value in row.items()
        }
    return {"rows": _encode(rows)}


def _encode_value(value: Any) -> str:
    text: str = value.hex() if isinstance(value, bytes) else value.isoformat()
    return text


_encode = jsonlib.JSONEncoder(default=_encode_value).encode


def in_order(rows: Sequence[Row], results: Sequence[Any]) -> list[Sequence[Any] | None]:
    """Return the result for each row, None where there is none. A result begins with the `row_number`."""
    found = {number: rest for number, *rest in results}
    return [found.get(number) for number in range(1, len(rows) + 1)]


async def select_each(statement: str, rows: Sequence[Row], kind: str = READS) -> list[Sequence[Any] | None]:
    """Execute a statement that only reads; return what it selects for each row, None if nothing.

    It selects `row_number`, a column of `values_table`, first.
    """
    return in_order(rows, await fetch_all(statement, values_params(rows), kind))
