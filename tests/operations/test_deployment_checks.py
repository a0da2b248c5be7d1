"""System checks of the deployment and their IDs."""

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

from tests.support.database import database_unavailable
from tests.support.waiting import PATIENCE


def messages(tag: str, *, deploy: bool = True) -> list[tuple[str, str]]:
    """Return the IDs and messages of the checks of ags.operations."""
    results = run_checks(tags=[tag], include_deployment_checks=deploy, databases=["default"])
    return [(message.id, message.msg) for message in results if str(message.id).startswith("operations.")]  # type: ignore[misc]


def ids(tag: str, *, deploy: bool = True) -> list[str]:
    return [check_id for check_id, _ in messages(tag, deploy=deploy)]


TOO_MANY_CLIENTS = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"


@contextmanager
def proxy(rejected: int) -> Iterator[str]:
    """Run a proxy to PostgreSQL that rejects the first connections; yield the folder of its socket."""
    connection.ensure_connection()
    info = connection.connection.info
    numbers = itertools.count()

    class ProxyHandler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if next(numbers) < rejected:
                self.request.recv(65536)
                self.request.sendall(b"E" + (len(TOO_MANY_CLIENTS) + 4).to_bytes(4) + TOO_MANY_CLIENTS)
                return
            if info.host.startswith("/"):
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(f"{info.host}/.s.PGSQL.{info.port}")
            else:
                upstream = socket.create_connection((info.host, info.port))
            peers = {self.request: upstream, upstream: self.request}
            with upstream:
                while True:
                    for source in select.select(list(peers), [], [])[0]:
                        if not (data := source.recv(65536)):
                            return
                        peers[source].sendall(data)

    with (
        tempfile.TemporaryDirectory(prefix="ags-proxy-") as folder,
        socketserver.ThreadingUnixStreamServer(f"{folder}/.s.PGSQL.{info.port}", ProxyHandler) as server,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield folder
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def test_sqlite_is_a_warning(db: None) -> None:
    assert ids(Tags.security) == (["operations.W001"] if connection.vendor == "sqlite" else [])


def test_an_unset_number_of_proxies_is_a_warning(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert "operations.W002" in ids(Tags.security)


def test_deployment_checks_run_only_with_deploy(db: None, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES_SET = False
    assert ids(Tags.security, deploy=False) == []


def test_paths_that_a_process_does_not_serve_are_reported(db: None, settings: Any) -> None:
    for value, served in {
        "off": "the API, but not /admin/",
        "only": "/admin/ and /docs/, but not the API",
    }.items():
        settings.AGS_ADMIN = value
        by_id = dict(messages(Tags.security))
        assert by_id["operations.I001"] == (
            f"AGS_ADMIN is {value}: processes with this environment serve {served}."
        )
    settings.AGS_ADMIN = "on"
    assert "operations.I001" not in ids(Tags.security)


@pytest.mark.postgresql
def test_a_postgresql_that_can_lose_commits_is_a_warning(db: None) -> None:
    assert ids(Tags.security) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert ids(Tags.security) == ["operations.W003"]


def test_an_unavailable_database_causes_no_durability_warning(db: None) -> None:
    with database_unavailable():
        assert "operations.W003" not in ids(Tags.security)


@pytest.mark.postgresql
def test_a_database_without_free_connections_is_not_mistaken_for_a_pooler(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(rejected=1) as folder, monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", folder)
        patch.setitem(connection.settings_dict["OPTIONS"], "host", folder)
        assert ids(Tags.database) == []


@pytest.mark.postgresql
@pytest.mark.parametrize(("zone", "named"), [("UTC", []), ("Europe/Zurich", ["Europe/Zurich, not UTC"])])
def test_a_role_behind_a_pooler_needs_limits_and_the_time_zone_of_ags(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch, zone: str, named: list[str]
) -> None:
    settings.AGS_DATABASE_POOLER = "transaction"
    monkeypatch.setenv("PGTZ", zone)  # like ALTER ROLE
    limits, *others = messages(Tags.security)
    assert limits[0] == "operations.W004"
    assert "has no statement_timeout and no lock_timeout below 1.8 s" in limits[1]
    assert [check_id for check_id, _ in others] == ["operations.W004"] * len(named)
    assert all(name in message for name, (_, message) in zip(named, others, strict=True))
