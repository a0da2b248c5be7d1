"""The second port of a server: /metrics is there, and nowhere else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.live.server import Client, ServerProcess, manage
from tests.waiting import PATIENCE

pytestmark = pytest.mark.once


def test_metrics_are_told_on_the_operations_port_alone(transactional_db: None, port: int) -> None:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        operations = Client(port)
        assert operations.get("/metrics").status_code == 200
        assert operations.get("/metrics", headers={"Host": "10.1.2.3"}).status_code == 200
        assert operations.get("/readyz").status_code == 200
        assert server.get("/metrics").status_code == 404
        assert server.get("/metrics", headers={"Host": f"127.0.0.1:{port}"}).status_code == 404
        operations.close()


def test_a_socket_in_the_file_system_does_not_take_the_host_header_for_its_port(
    transactional_db: None, tmp_path: Path, port: int
) -> None:
    path = str(tmp_path / "ags.sock")
    server = ServerProcess(AGS_BIND=f"unix:{path}", AGS_OPERATIONS_BIND=f"127.0.0.1:{port}")
    server.port = port
    with server, socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(PATIENCE)
        wire.connect(path)
        wire.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
        assert wire.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_without_one_there_are_no_metrics(server: ServerProcess) -> None:
    assert server.get("/metrics").status_code == 404


def test_an_operations_port_that_is_none_is_said_so() -> None:
    done = manage("check", AGS_OPERATIONS_BIND="9100")
    assert "AGS_OPERATIONS_BIND: '9100' is not HOST:PORT." in done.stderr


def test_an_operations_port_is_not_that_of_the_api_not_even_at_another_address() -> None:
    done = manage("check", AGS_BIND="127.0.0.2:9100", AGS_OPERATIONS_BIND="127.0.0.1:9100")
    assert "AGS_OPERATIONS_BIND: it must have a port of its own." in done.stderr
