"""What PostgreSQL and SQLite spell differently in the statements that decide. Times are the database's."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVarTuple

from django.db import connection

from ags.database import fetch_all
from ags.database.django_database import execute
from ags.database.postgresql import PostgreSQL

_Ts = TypeVarTuple("_Ts")

_WORDS = {
    "postgresql": {
        "now": "statement_timestamp()",
        "after": "statement_timestamp() + {value} * interval '1 second'",
        "moment": "to_timestamp(({value})::double precision)",
        "epoch": "extract(epoch from {value})::double precision",
        "later": "greatest",
        "earlier": "least",
        "json": "{value}::jsonb",
        "element": "({name} ->> %({place})s::integer)",
    },
    "sqlite": {
        # As text in the form in which Django stores a moment there, so that they compare.
        "now": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "after": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+' || {value} || ' seconds')",
        "moment": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {value}, 'unixepoch')",
        "epoch": "((julianday({value}) - 2440587.5) * 86400.0)",
        "later": "max",
        "earlier": "min",
        "json": "{value}",
        "element": "json_extract({name}, '$[' || %({place})s || ']')",
    },
}


@cache
def _vendor() -> str:
    return connection.vendor


def now() -> str:
    """The moment of the statement."""
    return _WORDS[_vendor()]["now"]


PARAMETER = "%({})s"
"""How a statement names one of its parameters."""


def after(name: str, of: str = PARAMETER) -> str:
    """So many seconds from now, as a parameter says, or a column `of` something."""
    return _word("after", of.format(name))


def moment(name: str, of: str = PARAMETER) -> str:
    """A moment that a parameter, or a column `of` something, gives in seconds since the epoch."""
    return _word("moment", of.format(name))


def epoch(expression: str) -> str:
    """A moment as seconds since the epoch."""
    return _word("epoch", expression)


def later(*expressions: str) -> str:
    """The latest of several moments."""
    return f"{_WORDS[_vendor()]['later']}({', '.join(expressions)})"


def earlier(*expressions: str) -> str:
    """The earliest of several moments."""
    return f"{_WORDS[_vendor()]['earlier']}({', '.join(expressions)})"


def json(parameter: str) -> str:
    """A parameter that holds JSON as text."""
    return _word("json", PARAMETER.format(parameter))


def element(array: str, place: str) -> str:
    """Return the string at that place of a JSON array, counted from 0; NULL where the array is shorter."""
    return _WORDS[_vendor()]["element"].format(name=array, place=place)


def numbered(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """Several values of one kind as parameters: name_0, name_1 and so on."""
    return {f"{name}_{place}": value for place, value in enumerate(values)}


def listed(name: str, number: int) -> str:
    """So many of them, as a statement lists them."""
    return ", ".join(f"%({name}_{place})s" for place in range(number))


def written_once(write: Callable[[*_Ts], str]) -> Callable[[*_Ts], str]:
    """Put a statement together at its first use only: once for each database and each set of arguments."""

    @cache
    def written(vendor: str, *arguments: *_Ts) -> str:
        return write(*arguments)

    @wraps(write)
    def text(*arguments: *_Ts) -> str:
        return written(_vendor(), *arguments)

    return text


def _word(word: str, value: str) -> str:
    return _WORDS[_vendor()][word].format(value=value)


def rows_at_once() -> int:
    """How many rows `given` may be given."""
    return {"postgresql": PostgreSQL.max_batch_size, "sqlite": 1}[_vendor()]


def given(**columns: str) -> str:
    """Rows that a statement is given, as a table: its columns, each with its type in PostgreSQL."""
    if _vendor() == "sqlite":
        return f"(SELECT {', '.join(f'{PARAMETER.format(name)} AS {name}' for name in columns)})"
    listed = [f"decode({name}, 'hex') AS {name}" if columns[name] == "bytea" else name for name in columns]
    types = [f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in columns.items()]
    # One parameter, and so one plan, for any number of rows. That they are few, the limit tells the planner.
    rows = f"jsonb_to_recordset(%(rows)s::jsonb) AS r({', '.join(types)})"
    return f"(SELECT {', '.join(listed)} FROM {rows} LIMIT {rows_at_once()})"  # noqa: S608 - constants


_encode_rows = jsonlib.JSONEncoder(default=bytes.hex).encode


def giving(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the parameters of `given`."""
    if _vendor() == "sqlite":
        (row,) = rows
        return row
    return {"rows": _encode_rows(rows)}


async def fetch_each(statement: str, rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any] | None]:
    """Execute a statement that only reads for `given` rows; return what it selects for each, None if nothing.

    It selects `place`, a column of the given rows, first.
    """
    placed = [{**row, "place": place} for place, row in enumerate(rows)]
    found = {place: rest for place, *rest in await fetch_all(statement, giving(placed), read_only=True)}
    return [found.get(place) for place in range(len(rows))]


def one(statement: str, **values: Any) -> Any:
    """Run a statement; return the one row that it yields, or None."""
    return next(iter(several(statement, values)), None)


several = execute
"""Run a statement; return the rows that it yields."""
