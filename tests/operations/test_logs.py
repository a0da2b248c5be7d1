"""Log lines: JSON, or readable text at a terminal."""

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

import gunicorn.config
import pytest
from django.test import Client, RequestFactory
from hypothesis import given, settings
from hypothesis import strategies as st

from ags import __version__
from ags.server.arbiter import Logger
from ags.server.logs import JSONFormatter, TextFormatter
from tests.support.configuration import REQUIRED_VARIABLES
from tests.support.paths import ROOT

REQUESTS = """
from django.test import Client
Client().get("/healthz", headers={"x-correlation-id": "probe-1", "host": "localhost"})
Client().get("/openapi.json", headers={"x-correlation-id": "call-1", "host": "localhost"})
Client().get("/ags/servicediscovery", headers={"x-correlation-id": "call-2", "host": "localhost"})
"""


def command(**environment: str) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "manage.py", "shell", "--no-imports", "--command", REQUESTS]
    return words, {"PATH": os.environ["PATH"], **REQUIRED_VARIABLES, **environment}


def run_with_pipe(**environment: str) -> list[str]:
    words, env = command(**environment)
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return done.stderr.splitlines()


def run_at_terminal() -> list[str]:
    words, env = command()
    ours, theirs = pty.openpty()
    subprocess.run(words, env=env, cwd=ROOT, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    seen = os.read(ours, 65536)
    os.close(ours)
    return seen.decode().splitlines()


def test_each_request_is_logged_as_one_json_object() -> None:
    before = datetime.now(UTC)
    found, discovery = (json.loads(line) for line in run_with_pipe())
    after = datetime.now(UTC)
    for line in (found, discovery):
        assert line.pop("process") > 0
        # The line has milliseconds.
        assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(line.pop("time")) <= after
        assert 0 <= line.pop("duration_ms") <= (after - before) / timedelta(milliseconds=1)
    assert found == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "version": __version__,
        "correlation_id": "call-1",
        "client_address": "127.0.0.1",
        "method": "GET",
        "route": "/openapi.json",
        "tenant": None,
        "service": None,
        "kid": None,
        "outcome": "answered",
        "reason": None,
        "status": 200,
    }
    assert discovery == found | {
        "correlation_id": "call-2",
        "route": "/ags/servicediscovery",
        "outcome": "refused",
        "reason": "header_missing",
        "status": 400,
    }


def test_readable_lines_omit_empty_fields() -> None:
    found, discovery = run_at_terminal()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO    request correlation_id=call-1 client_address=127.0.0.1 method=GET"
        r" route=/openapi.json outcome=answered status=200 duration_ms=[0-9.]+",
        found,
    )
    assert "outcome=refused reason=header_missing status=400" in discovery


def test_the_log_level_filters_lines() -> None:
    assert run_with_pipe(AGS_LOG_LEVEL="WARNING") == []


def record(message: str, **extra: object) -> logging.LogRecord:
    log_record = logging.LogRecord("ags.x", logging.ERROR, "x", 1, message, None, None)
    vars(log_record).update(extra)
    return log_record


@pytest.mark.parametrize("text", ["a\nb", 'a"b', "a\u2028b", "a\x00b", "ä\ud800"])
def test_no_value_can_inject_or_break_a_line(text: str, tmp_path: Path) -> None:
    line = JSONFormatter().format(record(text, tenant=text))
    assert "\n" not in line
    written = json.loads(line)
    assert (written["message"], written["tenant"]) == (text, text)
    assert next(iter(written)) == "time"
    (tmp_path / "log").write_text(line, encoding="utf-8")


WHOLE_SECONDS = st.integers(0, 2**32)
CREATED = st.floats(0, 2**32) | WHOLE_SECONDS | WHOLE_SECONDS.map(lambda seconds: seconds + 1 - 4e-7)


@settings(max_examples=500, derandomize=True, database=None, deadline=None)
@given(CREATED)
def test_the_time_equals_isoformat(created: float) -> None:
    line = json.loads(JSONFormatter().format(record("x", created=created)))
    assert line["time"] == datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")


def test_extra_fields_do_not_replace_standard_fields() -> None:
    line = JSONFormatter().format(record("x", time=1, level=2, logger=3, version=4, tenant="nagra"))
    written = json.loads(line)
    assert datetime.fromisoformat(written.pop("time"))
    assert written == {
        "level": "ERROR",
        "logger": "ags.x",
        "message": "x",
        "process": os.getpid(),
        "version": __version__,
        "tenant": "nagra",
    }


def test_a_readable_line_contains_extra_fields() -> None:
    line = TextFormatter().format(record("event", tenant="nagra", service=None, number=0))
    assert line.endswith("ERROR   event tenant=nagra number=0")


MARKER = "marker-0815"
FORMATTERS = pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()])


def crashed(how: str) -> BaseException:
    """Return an exception with a cause or context, both with secret messages."""
    text = "mark" + "er-0815"  # so that no source line of the traceback contains it
    try:
        try:
            raise LookupError(text)
        except LookupError as error:
            if how == "cause":
                raise ValueError(text) from error
            raise ValueError(text)  # noqa: B904 - the other way to chain
    except ValueError as error:
        return error


@FORMATTERS
@pytest.mark.parametrize("how", ["cause", "context"])
def test_a_traceback_is_logged_without_exception_messages(formatter: logging.Formatter, how: str) -> None:
    error = crashed(how)
    line = logging.LogRecord("x", 40, "x", 1, "crash", None, (type(error), error, error.__traceback__))
    written = formatter.format(line)
    assert MARKER not in written
    assert written.index("LookupError") < written.index("ValueError")
    assert written.count("in crashed") == 2


@FORMATTERS
def test_an_object_is_logged_as_its_type(formatter: logging.Formatter) -> None:
    written = formatter.format(record("refused", request=RequestFactory().get(f"/{MARKER}")))
    assert MARKER not in written
    assert "WSGIRequest" in written


def test_an_exception_of_the_arbiter_is_logged_without_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Logger(gunicorn.config.Config())
    try:
        raise ValueError("mark" + "er-0815")
    except ValueError:
        log.exception("Exception in worker process")
    finally:
        log.error_log.handlers.clear()
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "Exception in worker process"
    assert line["exc_info"].endswith("ValueError")
    assert MARKER not in str(line)


def test_a_lockout_is_logged_by_ip_address_only(
    db: None, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        client.post("/admin/login/", {"username": MARKER, "password": MARKER})
    lines = [line.getMessage() for line in caplog.records if line.name.startswith("axes")]
    assert any("127.0.0.1" in line for line in lines)
    assert MARKER not in "".join(lines)
