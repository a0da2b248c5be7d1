"""`manage.py check --deploy`: what would be wrong in front of subscribers has an id that does not change."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.db import connection

from tests.api.test_refusals import database_away


def ids(tag: str, *, deploy: bool = True) -> list[str | None]:
    """The ids of our own checks that have something to say."""
    found = run_checks(tags=[tag], include_deployment_checks=deploy, databases=["default"])
    return [message.id for message in found if message.id and message.id.startswith("operations.")]


def test_sqlite_is_for_trying(db: None) -> None:
    assert ids(Tags.security) == (["operations.W001"] if connection.vendor == "sqlite" else [])


def test_the_number_of_proxies_must_be_said(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert "operations.W002" in ids(Tags.security)


def test_nothing_of_it_is_asked_of_a_development_machine(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert ids(Tags.security, deploy=False) == []


@pytest.mark.postgresql
def test_a_postgresql_that_may_lose_what_was_granted(db: None) -> None:
    assert ids(Tags.security) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert ids(Tags.security) == ["operations.W003"]


def test_a_database_that_is_away_is_for_others_to_tell(db: None) -> None:
    with database_away():
        assert "operations.W003" not in ids(Tags.security)
