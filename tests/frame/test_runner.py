"""`python -m tests` fails whenever something is not as it should be, and says what it left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.__main__ import main
from tests.support.markers import NEEDS_POSTGRESQL, skip_unless_installed

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


NOT_RUN = "pytest.skip('not on this machine: slapd (apt-get install slapd)')"


@pytest.mark.parametrize(("statement", "status", "told"), ENDS.values(), ids=ENDS)
def test_whatever_is_not_a_pass_of_all_is_a_failure(
    statement: str,
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(statement, tmp_path, monkeypatch) == status
    assert f"SQLite: {told}" in capsys.readouterr().out


@pytest.mark.parametrize(("demand", "status"), [("", 0), ("0", 0), ("1", 1)])
def test_what_this_machine_lacks_is_told_and_is_a_failure_where_all_is_demanded(
    demand: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AGS_TEST_DEMAND_ALL", demand)
    assert run(NOT_RUN, tmp_path, monkeypatch) == status
    told = capsys.readouterr().out
    assert "SQLite: 0 ran, 0 failed, 0 left out that need PostgreSQL, 0 skipped, in " in told
    assert "  1 tests did not run: not on this machine: slapd (apt-get install slapd)\n" in told


def test_a_test_that_lacks_nothing_runs_and_one_that_does_says_what() -> None:
    assert skip_unless_installed(programs={"sh": "x"}, modules={"pytest": "x"}).args == (False,)
    mark = skip_unless_installed(
        programs={"no-such": "apt-get install it"}, modules={"no_such": "pip install it"}
    )
    assert mark.args == (True,)
    lacking = "no-such (apt-get install it), no_such (pip install it)"
    assert mark.kwargs["reason"] == f"not on this machine: {lacking}"


def test_the_slowest_tests_are_listed_for_each_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pass", tmp_path, monkeypatch) == 0
    listed = capsys.readouterr().out.partition("The slowest tests:\n")[2]
    assert set(re.findall(r"^ +\d+\.\d s  (\w+): .*test_it::test_it$", listed, re.MULTILINE)) == {
        "SQLite",
        "PostgreSQL",
    }


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ([], {"SQLite": 1, "PostgreSQL": 2}),
        (["--full"], {"SQLite": 2, "PostgreSQL": 3}),
        (["--coverage"], {"PostgreSQL": 3}),
    ],
    ids=["by default", "--full", "--coverage"],
)
def test_what_uses_no_database_runs_once_and_what_takes_long_runs_on_demand(
    options: list[str],
    ran: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = "@pytest.mark.once\ndef test_once(): pass\n@pytest.mark.full\ndef test_full(): pass"
    statement = f"import providers.claims\n{more}"
    run(statement, tmp_path, monkeypatch, *options)
    told = re.findall(r"^(\w+): (\d+) ran, 0 failed", capsys.readouterr().out, re.MULTILINE)
    assert {database: int(number) for database, number in told} == ran


def test_ci_demands_that_nothing_is_missing() -> None:
    ci = (Path(__file__).resolve().parents[2] / ".ci" / "run").read_text()
    assert "\nexport AGS_TEST_DEMAND_ALL=1\nstep make test\n" in ci


def run(statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Run one test of that statement as `python -m tests` would."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # this needs no Django
    configuration, test = tmp_path / "pytest.ini", tmp_path / "test_it.py"
    configuration.write_text("[pytest]\nmarkers = once\n full\n")
    test.write_text(f"import os, pytest, signal\ndef test_it():\n    {statement}\n")
    return main([*options, f"--config-file={configuration}", str(test)])
