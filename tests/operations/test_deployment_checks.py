"""`manage.py check --deploy`: what would be wrong in front of subscribers has an id that does not change."""

from __future__ import annotations

import itertools
import select
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.db import connection

from tests.api.test_refusals import database_away
from tests.waiting import PATIENCE


def messages(tag: str, *, deploy: bool = True) -> list[tuple[str, str]]:
    """What our own checks have to say, each with its id."""
    found = run_checks(tags=[tag], include_deployment_checks=deploy, databases=["default"])
    return [(message.id, message.msg) for message in found if str(message.id).startswith("operations.")]  # type: ignore[misc]


def ids(tag: str, *, deploy: bool = True) -> list[str]:
    """The ids of our own checks that have something to say."""
    return [its for its, _ in messages(tag, deploy=deploy)]


FULL = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"


@contextmanager
def front(refused: int) -> Iterator[str]:
    """A socket in front of PostgreSQL, which is full for so many connections; yield its folder."""
    connection.ensure_connection()
    info = connection.connection.info
    numbers = itertools.count()

    class Front(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if next(numbers) < refused:
                self.request.recv(65536)
                self.request.sendall(b"E" + (len(FULL) + 4).to_bytes(4) + FULL)
                return
            if info.host.startswith("/"):
                behind = socket.socket(socket.AF_UNIX)
                behind.connect(f"{info.host}/.s.PGSQL.{info.port}")
            else:
                behind = socket.create_connection((info.host, info.port))
            to = {self.request: behind, behind: self.request}
            with behind:
                while True:
                    for one in select.select(list(to), [], [])[0]:
                        if not (data := one.recv(65536)):
                            return
                        to[one].sendall(data)

    with (
        tempfile.TemporaryDirectory(prefix="ags-front-") as folder,
        socketserver.ThreadingUnixStreamServer(f"{folder}/.s.PGSQL.{info.port}", Front) as server,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield folder
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def test_sqlite_is_for_trying(db: None) -> None:
    assert ids(Tags.security) == (["operations.W001"] if connection.vendor == "sqlite" else [])


def test_the_number_of_proxies_must_be_said(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert "operations.W002" in ids(Tags.security)


def test_nothing_of_it_is_asked_of_a_development_machine(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert ids(Tags.security, deploy=False) == []


def test_what_a_process_does_not_serve_is_said(db: None, settings: Any) -> None:
    for value, served in {
        "off": "the API, and no /admin/",
        "only": "/admin/ and /docs/, and no endpoint of the API",
    }.items():
        settings.AGS_ADMIN = value
        found = dict(messages(Tags.security))
        assert found["operations.I001"] == (
            f"AGS_ADMIN is {value}: processes with this environment serve {served}."
        )
    settings.AGS_ADMIN = "on"
    assert "operations.I001" not in ids(Tags.security)


@pytest.mark.postgresql
def test_a_postgresql_that_may_lose_what_was_granted(db: None) -> None:
    assert ids(Tags.security) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert ids(Tags.security) == ["operations.W003"]


def test_a_database_that_is_away_is_for_others_to_tell(db: None) -> None:
    with database_away():
        assert "operations.W003" not in ids(Tags.security)


@pytest.mark.postgresql
def test_a_database_that_is_full_for_a_moment_is_no_pooler(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with front(refused=1) as folder, monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", folder)
        patch.setitem(connection.settings_dict["OPTIONS"], "host", folder)
        assert ids(Tags.database) == []


@pytest.mark.postgresql
@pytest.mark.parametrize(("zone", "named"), [("UTC", []), ("Europe/Zurich", ["Europe/Zurich, not UTC"])])
def test_a_role_behind_a_pooler_has_limits_and_the_time_zone_of_ags(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch, zone: str, named: list[str]
) -> None:
    settings.AGS_DATABASE_POOLER = "transaction"
    monkeypatch.setenv("PGTZ", zone)  # stands for ALTER ROLE
    limits, *others = messages(Tags.security)
    assert limits[0] == "operations.W004"
    assert "has no statement_timeout and no lock_timeout below 1.8 s" in limits[1]
    assert [its for its, _ in others] == ["operations.W004"] * len(named)
    assert all(name in message for name, (_, message) in zip(named, others, strict=True))
