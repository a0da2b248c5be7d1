"""Log lines: JSON for a collector, text for a person at a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ags.operations.logs import JSONLines, ReadableLines
from tests.operations.test_environment import GOOD, ROOT

ASK = """
from django.test import Client
Client().get("/healthz", headers={"x-correlation-id": "call-1", "host": "localhost"})
Client().get("/ags/servicediscovery", headers={"x-correlation-id": "call-2", "host": "localhost"})
"""


def command(**environment: str) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "manage.py", "shell", "--no-imports", "--command", ASK]
    return words, {"PATH": os.environ["PATH"], **GOOD, **environment}


def through_a_pipe(**environment: str) -> list[str]:
    words, env = command(**environment)
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return done.stderr.splitlines()


def at_a_terminal() -> list[str]:
    words, env = command()
    ours, theirs = pty.openpty()
    subprocess.run(words, env=env, cwd=ROOT, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    seen = os.read(ours, 65536)
    os.close(ours)
    return seen.decode().splitlines()


def test_a_collector_gets_one_json_object_for_each_request() -> None:
    before = datetime.now(UTC)
    alive, discovery = (json.loads(line) for line in through_a_pipe())
    after = datetime.now(UTC)
    for line in (alive, discovery):
        # The line has milliseconds.
        assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(line.pop("time")) <= after
        assert 0 <= line.pop("duration_ms") <= (after - before) / timedelta(milliseconds=1)
    assert alive == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "correlation_id": "call-1",
        "method": "GET",
        "route": "/healthz",
        "tenant": None,
        "service": None,
        "outcome": "answered",
        "reason": None,
        "status": 200,
    }
    assert discovery == alive | {
        "correlation_id": "call-2",
        "route": "/ags/servicediscovery",
        "outcome": "refused",
        "reason": "header_missing",
        "status": 400,
    }


def test_a_person_gets_lines_without_what_is_empty() -> None:
    alive, discovery = at_a_terminal()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO    request correlation_id=call-1 method=GET route=/healthz outcome=answered"
        r" status=200 duration_ms=[0-9.]+",
        alive,
    )
    assert "outcome=refused reason=header_missing status=400" in discovery


def test_a_level_keeps_the_less_important_away() -> None:
    assert through_a_pipe(AGS_LOG_LEVEL="WARNING") == []


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("ags.x", logging.ERROR, "x", 1, message, None, None)
    vars(made).update(extra)
    return made


@pytest.mark.parametrize("text", ["a\nb", 'a"b', "a\u2028b", "a\x00b", "ä\ud800"])
def test_no_value_can_make_a_second_line_or_break_one(text: str, tmp_path: Path) -> None:
    line = JSONLines().format(record(text, tenant=text))
    assert "\n" not in line
    written = json.loads(line)
    assert (written["message"], written["tenant"]) == (text, text)
    assert next(iter(written)) == "time"
    (tmp_path / "log").write_text(line, encoding="utf-8")


def test_a_readable_line_holds_what_the_call_added() -> None:
    line = ReadableLines().format(record("told", tenant="nagra", service=None, number=0))
    assert line.endswith("ERROR   told tenant=nagra number=0")
