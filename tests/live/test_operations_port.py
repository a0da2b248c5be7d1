"""The operations port, the only one with /metrics."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.server import Client, ServerProcess, run_manage
from tests.support.waiting import PATIENCE

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
