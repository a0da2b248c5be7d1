"""SQL functions for PostgreSQL and SQLite, and statements over a table of values: one row per request."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial, wraps
from typing import Any, TypeVarTuple

from django.db import connection

from ags.database import READS, fetch_all
from ags.database.batching import Batcher
from ags.database.postgresql import PostgreSQL

_Ts = TypeVarTuple("_Ts")

Row = Mapping[str, Any]

_TEMPLATES = {
    "postgresql": {
        "now": "statement_timestamp()",
        "now_plus_seconds": "statement_timestamp() + {} * interval '1 second'",
        "from_epoch": "to_timestamp(({})::double precision)",
        "to_epoch": "extract(epoch from {})::double precision",
        "greatest": "greatest({}, {})",
        "least": "least({}, {})",
        "json": "{}::jsonb",
        "array_element": "({} ->> {}::integer)",
        "lock_rows": "FOR UPDATE OF {}",
        "row_number": "g.row_number",
    },
    "sqlite": {
        # Text in Django's storage format for datetimes, so that both can be compared.
        "now": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "now_plus_seconds": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+' || {} || ' seconds')",
        "from_epoch": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {}, 'unixepoch')",
        "to_epoch": "((julianday({}) - 2440587.5) * 86400.0)",
        "greatest": "max({}, {})",
        "least": "min({}, {})",
        "json": "{}",
        "array_element": "json_extract({}, '$[' || {} || ']')",
        "lock_rows": "",  # a write transaction locks the database
        "row_number": "1",  # RETURNING cannot refer to `g`, and a statement has one row
    },
}


@cache
def _vendor() -> str:
    return connection.vendor


def _render(function: str, *arguments: str) -> str:
    return _TEMPLATES[_vendor()][function].format(*arguments)


now = partial(_render, "now")
"""The time at which the statement started, by the database's clock."""

# `from_epoch` takes seconds since the epoch, and `to_epoch` returns them.
now_plus_seconds = partial(_render, "now_plus_seconds")
from_epoch = partial(_render, "from_epoch")
to_epoch = partial(_render, "to_epoch")

greatest = partial(_render, "greatest")
least = partial(_render, "least")
json = partial(_render, "json")

array_element = partial(_render, "array_element")
"""The string at an index of a JSON array, from 0; NULL if the array is shorter."""

lock_rows = partial(_render, "lock_rows")
"""At the end of a SELECT: lock its rows of that table."""

row_number = partial(_render, "row_number")
"""The column `row_number` of `g`, for the RETURNING of an UPDATE from `g`."""


def numbered_params(name: str, values: Iterable[Any]) -> dict[str, Any]:
    return {f"{name}_{number}": value for number, value in enumerate(values)}


def numbered_columns(name: str, count: int) -> str:
    """Return the columns of `numbered_params` in `g`, separated by commas."""
    return ", ".join(f"g.{name}_{number}" for number in range(count))


def cached_sql(build: Callable[[*_Ts], str]) -> Callable[[*_Ts], str]:
    @cache
    def build_for_vendor(vendor: str, *arguments: *_Ts) -> str:
        return build(*arguments)

    @wraps(build)
    def wrapper(*arguments: *_Ts) -> str:
        return build_for_vendor(_vendor(), *arguments)

    return wrapper


def values_table(**columns: str) -> str:
    """Return the table of `values_params`, with `row_number` from 1. `columns`: the PostgreSQL types."""
    if _vendor() == "sqlite":
        return f"(SELECT {', '.join(f'%({name})s AS {name}' for name in columns)}, 1 AS row_number)"
    expressions = [
        f"decode({name}, 'hex') AS {name}" if columns[name] == "bytea" else name for name in columns
    ]
    types = [f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in columns.items()]
    # A single parameter gives one plan for any number of rows. The range condition makes the planner expect
    # one row, so that it uses indexes.
    return f"""(SELECT {", ".join(expressions)}, row_number
   FROM ROWS FROM (jsonb_to_recordset(%(rows)s::jsonb) AS ({", ".join(types)})) WITH ORDINALITY
        AS r({", ".join(columns)}, row_number)
  WHERE row_number BETWEEN 1 AND {PostgreSQL.max_batch_size})"""  # noqa: S608 - constants


def values_params(rows: Sequence[Row]) -> Row:
    """Return the parameters of a statement with `values_table`. SQLite takes exactly one row.

    Values are of the types of JSON, bytes or datetimes. Objects and arrays are for columns of type jsonb.
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


def order_results(rows: Sequence[Row], results: Sequence[Any]) -> list[Sequence[Any] | None]:
    """Return the result for each row, or None, in the order of `rows`. Results begin with `row_number`."""
    by_number = {number: rest for number, *rest in results}
    return [by_number.get(number) for number in range(1, len(rows) + 1)]


def batch_selects(name: str, statement: Callable[[], str]) -> Batcher:
    """Return a batcher for a SELECT whose first column is `row_number`. Its results are rows, or None."""
    return Batcher(name, lambda rows: select_each(statement(), rows))


async def select_each(statement: str, rows: Sequence[Row], kind: str = READS) -> list[Sequence[Any] | None]:
    """Execute a SELECT whose first column is `row_number`. Return its result for each row, or None."""
    return order_results(rows, await fetch_all(statement, values_params(rows), kind))
