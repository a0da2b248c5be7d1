"""pydantic, which reads configuration files, takes no memory and no time of the server."""

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
        if name == "pydantic":
            with open({file!r}, "a") as stream:
                print(sys.argv, file=stream)

sys.meta_path.insert(0, Recorder())
"""
"""A `sitecustomize.py` that appends the command line of a process that imports pydantic to a file."""


def test_only_apply_imports_pydantic(transactional_db: None, nagra: HeadEnd, tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    (tmp_path / "sitecustomize.py").write_text(SITE.format(file=str(imports)))
    with ServerProcess(AGS_TRUSTED_PROXIES="1", PYTHONPATH=str(tmp_path)) as server:
        app = ClientApp(replace(nagra, client=server.client()))
        assert app.sign_on().status_code == 201
        assert app.refresh().status_code == 200
        for path in ("/openapi.json", "/docs/", "/admin/login/"):
            assert server.client().get(path, headers={"X-Forwarded-Proto": "https"}).status_code == 200
    assert not imports.exists(), imports.read_text()
    run_manage("apply", "--help", PYTHONPATH=str(tmp_path))
    assert "'apply'" in imports.read_text()
