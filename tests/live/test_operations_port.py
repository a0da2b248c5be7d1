"""The operations port, the only one with /metrics."""

from __future__ import annotations

import re
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tenants.models import Tenant
from tests.support.clients import HeadEnd
from tests.support.server import Client, ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once


def test_metrics_are_only_on_the_operations_port(transactional_db: None, port: int) -> None:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        operations = Client(port)
        assert operations.get("/metrics").status_code == 200
        assert operations.get("/metrics", headers={"Host": "10.1.2.3"}).status_code == 200
        assert operations.get("/readyz").status_code == 200
        assert server.get("/metrics").status_code == 404
        assert server.get("/metrics", headers={"Host": f"127.0.0.1:{port}"}).status_code == 404
        operations.close()


def test_every_process_returns_the_limited_requests_of_all(
    transactional_db: None, port: int, nagra: HeadEnd
) -> None:
    Tenant.objects.filter(pk=nagra.tenant_id).update(max_failures_per_address=1)
    changes = {"AGS_OPERATIONS_BIND": f"127.0.0.1:{port}", "AGS_TRUSTED_PROXIES": "1"}
    with ServerProcess(AGS_WORKERS="2", **changes) as server:
        limited: Counter[int] = Counter()

        def fail() -> bool:
            """Send failures over new connections, of either process; return True when enough are limited."""
            for _ in range(3):
                connection = Client(server.port)
                here = replace(nagra, client=connection)
                limited[here.present("x.y.z", x_forwarded_for="192.0.2.1").status_code] += 1
                connection.close()
            return limited[429] > 20

        wait_until(fail, "the client is not limited")
        totals: Counter[str] = Counter()
        for _ in range(20):
            operations = Client(port)
            page = operations.get("/metrics").content.decode()
            operations.close()
            totals.update(
                re.findall(r'^ags_limited_requests_total\{limit="address"\} (.+)$', page, re.MULTILINE)
            )
        assert totals == {f"{limited[429]}.0": 20}


def test_unix_socket_does_not_use_the_port_of_the_host_header(
    transactional_db: None, tmp_path: Path, port: int
) -> None:
    path = str(tmp_path / "ags.sock")
    server = ServerProcess(AGS_BIND=f"unix:{path}", AGS_OPERATIONS_BIND=f"127.0.0.1:{port}")
    server.port = port
    with server, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_no_metrics_without_an_operations_port(server: ServerProcess) -> None:
    assert server.get("/metrics").status_code == 404


def test_invalid_operations_bind() -> None:
    done = run_manage("check", AGS_OPERATIONS_BIND="9100")
    assert "AGS_OPERATIONS_BIND: '9100' is not HOST:PORT." in done.stderr


def test_operations_port_must_differ_from_the_api_port() -> None:
    done = run_manage("check", AGS_BIND="127.0.0.2:9100", AGS_OPERATIONS_BIND="127.0.0.1:9100")
    assert "AGS_OPERATIONS_BIND: the port must differ from that of AGS_BIND." in done.stderr
