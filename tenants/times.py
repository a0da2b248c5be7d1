"""Times as staff read them."""

from datetime import datetime


def format_utc(time: datetime) -> str:
    """Return a time, which Django loads in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
