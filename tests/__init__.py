"""Everything that is tested."""

NEEDS_POSTGRESQL = "only PostgreSQL can show it"
"""Why a test is left out on SQLite; the one reason there is for leaving out a test."""
