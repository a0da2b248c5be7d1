"""An installation that another commit made: its database, and the credentials of clients and staff."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from tests.support.clients import ClientApp

FOLDER = Path(__file__).parent
LAST_MOMENT = datetime(9999, 12, 31)  # noqa: DTZ001 - UTC, as Django stores moments on SQLite


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of one database in the folder that is named after the commit."""

    folder: Path
    vendor: str

    def __str__(self) -> str:
        return self.folder.name

    @property
    def database_file(self) -> Path:
        """The SQLite database, or the dump of PostgreSQL."""
        return self.folder / {"sqlite": "sqlite.sqlite3", "postgresql": "postgresql.sql"}[self.vendor]

    @property
    def credentials_file(self) -> Path:
        """Tokens, secrets and passwords, and what is expected of them: JSON, as `Maker` collects it."""
        return self.folder / f"{self.vendor}.json"

    @property
    def credentials(self) -> dict[str, Any]:
        """Return what is in that file."""
        credentials: dict[str, Any] = json.loads(self.credentials_file.read_text())
        return credentials

    def save_credentials(self, credentials: dict[str, Any]) -> None:
        """Write that file."""
        self.credentials_file.write_text(json.dumps(credentials, indent=1) + "\n")

    def load(self, url: str) -> None:
        """Fill the empty database at `url`, as if it had been saved just now.

        This shifts the value of each column of moments by the time since then: a token that had five minutes
        left has five minutes again. It changes no moment within JSON or within a token.
        """
        age = datetime.now(UTC) - datetime.fromisoformat(self.credentials["saved_at"])
        whole_seconds = timedelta(seconds=int(age.total_seconds()))
        if self.vendor == "sqlite":
            path = url.removeprefix("sqlite:///")
            shutil.copyfile(self.database_file, path)
            _shift_moments_of_sqlite(path, whole_seconds)
        else:
            _load_dump(url, self.database_file.read_text(), whole_seconds)


def installations(vendor: str) -> list[Installation]:
    """Return those that the repository keeps for a kind of database."""
    return [
        Installation(file.parent, vendor) for file in sorted(FOLDER.glob("*/*.json")) if file.stem == vendor
    ]


def use_token(app: ClientApp, kind: str, token: str) -> Any:
    """Let a client app send a token to the endpoint for it; return the answer."""
    calls: dict[str, Callable[[str], Any]] = {
        "session_token": app.redeem,
        "user_account_token": app.choose_account,
        "refresh_token": app.refresh,
    }
    return calls[kind](token)


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Execute a statement in the database at `url` and commit; return the rows that it yields."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(url) as database:
        cursor = database.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _load_dump(url: str, dump: str, age: timedelta) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(dump)
        # The dump has emptied the search path.
        connection.execute("SET search_path TO public")
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'timestamp with time zone'"
        ).fetchall()
        for table, column in columns:
            # `least` ignores NULL.
            connection.execute(
                f'UPDATE "{table}" SET "{column}" = least("{column}" + %s, %s) WHERE "{column}" IS NOT NULL',
                (age, LAST_MOMENT),
            )


def _shift_moments_of_sqlite(path: str, age: timedelta) -> None:
    def shifted(text: str | None) -> str | None:
        if text is None:
            return None
        moment = datetime.fromisoformat(text)
        return str(moment + min(age, LAST_MOMENT - moment))

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("shifted", 1, shifted)
        columns = connection.execute(
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c"
            " WHERE t.type = 'table' AND c.type = 'datetime'"
        ).fetchall()
        for table, column in columns:
            connection.execute(f'UPDATE "{table}" SET "{column}" = shifted("{column}")')
