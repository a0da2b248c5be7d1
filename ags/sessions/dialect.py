"""What PostgreSQL and SQLite spell differently in the statements that decide. Times are the database's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any, TypeVarTuple

from django.db import connection

_Ts = TypeVarTuple("_Ts")

_WORDS = {
    "postgresql": {
        "now": "statement_timestamp()",
        "after": "statement_timestamp() + %({name})s * interval '1 second'",
        "moment": "to_timestamp(%({name})s::double precision)",
        "epoch": "extract(epoch from {name})::double precision",
        "later": "greatest",
        "earlier": "least",
        "json": "%({name})s::jsonb",
        "element": "({name} ->> %({place})s::integer)",
    },
    "sqlite": {
        # As text in the form in which Django stores a moment there, so that they compare.
        "now": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "after": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+' || %({name})s || ' seconds')",
        "moment": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', %({name})s, 'unixepoch')",
        "epoch": "((julianday({name}) - 2440587.5) * 86400.0)",
        "later": "max",
        "earlier": "min",
        "json": "%({name})s",
        "element": "json_extract({name}, '$[' || %({place})s || ']')",
    },
}


def now() -> str:
    """The moment of the statement."""
    return _WORDS[connection.vendor]["now"]


def after(parameter: str) -> str:
    """So many seconds from now."""
    return _word("after", parameter)


def moment(parameter: str) -> str:
    """A moment given in seconds since the epoch."""
    return _word("moment", parameter)


def epoch(expression: str) -> str:
    """A moment as seconds since the epoch."""
    return _word("epoch", expression)


def later(*expressions: str) -> str:
    """The latest of several moments."""
    return f"{_WORDS[connection.vendor]['later']}({', '.join(expressions)})"


def earlier(*expressions: str) -> str:
    """The earliest of several moments."""
    return f"{_WORDS[connection.vendor]['earlier']}({', '.join(expressions)})"


def json(parameter: str) -> str:
    """A parameter that holds JSON as text."""
    return _word("json", parameter)


def element(array: str, place: str) -> str:
    """Return the string at that place of a JSON array, counted from 0; NULL where the array is shorter."""
    return _WORDS[connection.vendor]["element"].format(name=array, place=place)


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
        return written(connection.vendor, *arguments)

    return text


def _word(word: str, name: str) -> str:
    return _WORDS[connection.vendor][word].format(name=name)


def one(statement: str, **values: Any) -> Any:
    """Run a statement; return the one row that it yields, or None."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return next(iter(cursor.fetchall()), None)
