"""Parameters of the connections to PostgreSQL."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from django.db import connection
from django.test import override_settings

from ags.database.django_connections import with_timeouts

SETTINGS = ("work_mem", "statement_timeout", "lock_timeout")


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("pooler", "values"), [("none", ["5MB", "1500ms", "1500ms"]), ("transaction", ["5MB", "0", "0"])]
)
def test_limits_are_added_to_the_startup_options_of_the_url(
    db: None, monkeypatch: pytest.MonkeyPatch, pooler: str, values: list[str]
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c work_mem=5MB")
    with override_settings(AGS_DATABASE_POOLER=pooler):
        parameters = with_timeouts(connection.get_connection_params())
    with closing(psycopg.connect(**parameters)) as pg:
        current = [pg.execute(f"SHOW {name}").fetchone() for name in SETTINGS]
    assert current == [(value,) for value in values]
