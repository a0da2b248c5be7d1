"""Times of the database, and as staff read them."""

from datetime import UTC, datetime

from django.db import connection


def format_utc(time: datetime) -> str:
    """Return a time, which Django loads in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def get_database_time() -> datetime:
    """Return its time in UTC, on SQLite in milliseconds. Uses Django's connection of the thread."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT statement_timestamp()")
            (now,) = cursor.fetchone()
            return now.astimezone(UTC)  # type: ignore[no-any-return]
        cursor.execute("SELECT strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')", [])
        (text,) = cursor.fetchone()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
