"""The servers of other people: a port that is taken, a server that fails, and one that says nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.upstream.process import (
    ATTEMPTS,
    Lines,
    accepts_connections,
    free_port,
    reserved_port,
    run_process,
)

SERVER = """
import signal, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
signal.pause()
"""


def command(port: int) -> list[str]:
    return [sys.executable, "-c", SERVER, str(port)]


def test_a_server_whose_port_was_taken_is_started_on_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        tried: list[int] = []

        def prepare() -> list[str]:
            tried.append(taken if len(tried) < 2 else free_port())
            return command(tried[-1])

        with run_process(prepare, log, lambda: "listening" in log.read_text()) as server:
            assert accepts_connections(tried[-1])
        assert tried[:2] == [taken, taken] != tried[-2:]
        assert server.returncode is not None


def test_a_port_that_stays_taken_is_not_tried_for_ever(tmp_path: Path) -> None:
    tried: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as other:

        def prepare() -> list[str]:
            tried.append(other.getsockname()[1])
            return [sys.executable, "-c", "print('Address already in use')"]

        with pytest.raises(Exception, match="Address already in use"):
            run_process(prepare, tmp_path / "log", lambda: False).__enter__()
    assert len(tried) == ATTEMPTS


def test_a_server_that_fails_otherwise_says_why_and_is_not_started_again(tmp_path: Path) -> None:
    tried: list[str] = []

    def prepare() -> list[str]:
        tried.append("")
        return [sys.executable, "-c", "raise SystemExit('no such file')"]

    with pytest.raises(RuntimeError, match="no such file"):
        run_process(prepare, tmp_path / "log", lambda: False).__enter__()
    assert len(tried) == 1


def test_a_reserved_port_is_there_for_the_server_it_is_meant_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with reserved_port() as port:
        assert not accepts_connections(port)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port))
        with run_process(lambda: command(port), log, lambda: "listening" in log.read_text()):
            assert accepts_connections(port)


def test_lines_end_with_the_process() -> None:
    words = [sys.executable, "-c", "print('one'); print('two')"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = Lines(process.stdout)
        assert [lines.next() for _ in range(3)] == ["one\n", "two\n", ""]
        lines.close()
