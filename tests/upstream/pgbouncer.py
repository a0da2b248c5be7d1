"""A real PgBouncer in transaction mode, in front of the PostgreSQL of the tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests import program
from tests.upstream.process import free_port, running

NOBODY = 65534


@contextmanager
def pgbouncer(host: str, port: str, users: Mapping[str, str], **changes: str) -> Iterator[int]:
    """Run one for these users and their passwords; yield its port. `changes` are settings of PgBouncer.

    It takes the connections of PostgreSQL in turn: no transaction finds what the one before has left.
    """
    path = program("pgbouncer")
    assert path is not None
    with tempfile.TemporaryDirectory(prefix="ags-pgbouncer-") as name:
        folder = Path(name)
        configuration = folder / "pgbouncer.ini"
        ports: list[int] = []
        (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in users.items()))
        command = [path, str(configuration)]
        if os.geteuid() == 0:  # which it refuses to run as; PostgreSQL's own user may use its socket
            user = Path(host).stat().st_uid or NOBODY if host.startswith("/") else NOBODY
            ids = [f"--reuid={user}", f"--regid={NOBODY}", "--clear-groups"]
            command = ["setpriv", *ids, "--pdeathsig=KILL", *command]
            folder.chmod(0o755)

        def prepare() -> list[str]:
            ports.append(free_port())
            settings = {
                "listen_addr": "127.0.0.1",
                "listen_port": str(ports[-1]),
                "unix_socket_dir": "",
                "auth_type": "trust",
                "auth_file": str(folder / "users"),
                "pool_mode": "transaction",
                "default_pool_size": "8",
                "server_round_robin": "1",
                **changes,
            }
            lines = [f"{setting} = {value}" for setting, value in settings.items()]
            configuration.write_text(
                "\n".join(["[databases]", f"* = host={host} port={port}", "[pgbouncer]", *lines, ""])
            )
            return command

        log = folder / "log"
        with running(prepare, log, lambda: "process up" in log.read_text()):
            yield ports[-1]
