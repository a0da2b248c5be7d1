"""Without traces, a server does not need the library of OpenTelemetry, and does not import it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clients import ClientApp, HeadEnd
from tests.support.server import ServerProcess, run_manage

pytestmark = pytest.mark.once

SITE = """
import sys

class Recorder:
    def find_spec(self, name, path=None, target=None):
        if name == "opentelemetry":
            with open({file!r}, "a") as stream:
                print(sys.argv, file=stream)
            {then}

sys.meta_path.insert(0, Recorder())
"""
"""A `sitecustomize.py` that appends the command line of a process that imports OpenTelemetry to a file."""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "disabled", "none"],
)
def test_without_traces_nothing_is_imported(
    transactional_db: None, nagra: HeadEnd, tmp_path: Path, environment: dict[str, str]
) -> None:
    imports = tmp_path / "imports"
    (tmp_path / "sitecustomize.py").write_text(SITE.format(file=str(imports), then="pass"))
    with ServerProcess(PYTHONPATH=str(tmp_path), AGS_TRUSTED_PROXIES="1", **environment) as server:
        app = ClientApp(replace(nagra, client=server.client()))
        assert app.sign_on().status_code == 201
    assert not imports.exists(), imports.read_text()


def test_a_missing_library_is_named_before_the_server_starts(tmp_path: Path) -> None:
    missing = SITE.format(file=str(tmp_path / "imports"), then="raise ModuleNotFoundError(name=name)")
    (tmp_path / "sitecustomize.py").write_text(missing)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(tmp_path)}
    done = run_manage("serve", **environment)
    assert done.returncode == 1
    assert "(operations.E005)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "requirements/opentelemetry.txt" in done.stderr
