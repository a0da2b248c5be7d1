"""PgBouncer in transaction mode, in front of the PostgreSQL of the tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.markers import find_program
from tests.support.upstream.process import free_port, run_process

NOBODY = 65534


@contextmanager
def pgbouncer(host: str, port: str, users: Mapping[str, str], **changes: str) -> Iterator[int]:
    """Run it for these users and passwords; yield the port. `changes` are settings of PgBouncer.

    It uses its connections to PostgreSQL in turn, so no transaction depends on the state that another left.
    """
    path = find_program("pgbouncer")
    assert path is not None
    with tempfile.TemporaryDirectory(prefix="ags-pgbouncer-") as name:
        folder = Path(name)
        configuration = folder / "pgbouncer.ini"
        ports: list[int] = []
        (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in users.items()))
        command = [path, str(configuration)]
        if os.geteuid() == 0:  # PgBouncer refuses to run as root; the user of PostgreSQL may use its socket
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
        with run_process(prepare, log, lambda: "process up" in log.read_text()):
            yield ports[-1]
