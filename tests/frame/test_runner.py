"""`python -m tests` fails whenever something is not as it should be, and says what it left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import NEEDS_POSTGRESQL
from tests.__main__ import main

ON_SQLITE = "'DATABASE_URL' not in os.environ"
ENDS = {
    "all pass": ("assert True", 0, "1 ran, 0 failed, 0 left out"),
    "one fails": ("assert False", 1, "1 ran, 1 failed, 0 left out"),
    "one fails on SQLite": (f"assert not {ON_SQLITE}", 1, "1 ran, 1 failed, 0 left out"),
    "one is skipped": ("pytest.skip('a reason of its own')", 1, "0 ran, 0 failed, 0 left out"),
    "one needs PostgreSQL": (
        f"if {ON_SQLITE}: pytest.skip('{NEEDS_POSTGRESQL}')",
        0,
        "0 ran, 0 failed, 1 left out",
    ),
    "one is skipped on PostgreSQL": (f"pytest.skip('{NEEDS_POSTGRESQL}')", 1, "0 ran, 0 failed, 1 left out"),
    "a signal ends it": ("os.kill(os.getpid(), signal.SIGKILL)", 1, "nothing ran"),
}


@pytest.mark.parametrize(("statement", "status", "told"), ENDS.values(), ids=ENDS)
def test_whatever_is_not_a_pass_of_all_is_a_failure(
    statement: str,
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # this needs no Django
    configuration, test = tmp_path / "pytest.ini", tmp_path / "test_it.py"
    configuration.touch()
    test.write_text(f"import os, pytest, signal\ndef test_it():\n    {statement}\n")
    assert main([f"--config-file={configuration}", str(test)]) == status
    assert f"SQLite: {told}" in capsys.readouterr().out
