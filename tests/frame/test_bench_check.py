"""The guard of the hot paths (`make bench-check`): when it fails, and what it prints then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.check import (
    COMMITTED,
    HOT,
    PYTHON,
    STATEMENTS,
    Counts,
    Figures,
    dump,
    explain,
    load,
    parse_statements,
    report,
    rises,
    table,
)

FIGURES = Figures(
    calls=1000,
    statements=2,
    request_bytes=500,
    answer_bytes=200,
    functions={
        "ags.api.gate": {"Gate.__call__": 1, "answer": 699},
        "json.decoder": {"JSONDecoder.decode": 300},
    },
)


def counts(python: str = PYTHON, **changes: Any) -> Counts:
    return Counts(python, {"refresh": replace(FIGURES, **changes)})


def more_calls(number: int) -> Counts:
    gate = {**FIGURES.functions["ags.api.gate"], "Gate.needless": number}
    return counts(calls=1000 + number, functions={**FIGURES.functions, "ags.api.gate": gate})


def test_every_hot_path_has_committed_figures_that_read_back_as_written() -> None:
    committed = load(COMMITTED.read_text())
    assert set(committed.paths) == set(HOT)
    assert {"getSessionToken", "signOnWithSessionToken", "refresh", "introspection", "discovery"} <= set(HOT)
    for figures in committed.paths.values():
        assert figures.calls == sum(sum(names.values()) for names in figures.functions.values())
    assert dump(committed) == COMMITTED.read_text()
    assert report(committed, committed, {}) == 0


def test_a_rise_above_the_margin_fails_and_names_the_new_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(more_calls(31), counts(), {}) == 1
    printed = capsys.readouterr().out
    assert "Risen by more than 3 %: refresh (Python calls)." in printed
    assert "ags.api.gate: 731 in total, before 700" in printed
    assert "Gate.needless: 31, new" in printed
    assert "json.decoder" not in printed, "nothing there is called more often"


def test_a_new_function_is_named_before_those_that_are_called_more_often() -> None:
    functions = {"a": {f"old_{number}": 2 for number in range(30)}, "b": {"new": 1}}
    lines = explain(functions, {"a": dict.fromkeys(functions["a"], 1)})
    assert lines[:3] == ["  b: 1 in total, before 0", "    new: 1, new", "  a: 60 in total, before 30"]
    assert lines[-1] == "  and 11 more functions"


def test_a_slight_rise_passes_and_is_still_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(more_calls(30), counts(), {}) == 0
    assert not capsys.readouterr().out
    rows = table(more_calls(30), counts()).splitlines()
    assert rows[1].split() == ["refresh", "Python", "calls", "1030", "1000", "+3.0%"]
    assert rows[2].split() == ["in", "ags.api.gate", "730", "700", "+4.3%"]


@pytest.mark.parametrize("figure", ["statements", "request_bytes", "answer_bytes"])
def test_more_statements_or_bytes_fail(figure: str) -> None:
    raised = counts(**{figure: getattr(FIGURES, figure) * 104 // 100 + 1})
    assert rises(raised, counts()) == [("refresh", figure)]


def test_a_first_statement_fails_and_the_statements_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(counts(statements=1), counts(statements=0), {"refresh": ["SELECT 1"]}) == 1
    assert "SELECT 1" in capsys.readouterr().out


def test_a_path_that_was_never_committed_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(counts(), Counts(PYTHON, {}), {}) == 1
    assert "Not committed yet: refresh." in capsys.readouterr().out


def test_a_fall_passes_and_asks_for_new_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(counts(calls=900), counts(), {}) == 0
    printed = capsys.readouterr().out
    assert "Fallen by more than 3 %: refresh (Python calls)." in printed
    assert "--write" in printed


def test_with_another_python_version_calls_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    committed = counts(python="3.0")
    assert report(counts(calls=2000), committed, {}) == 0
    assert f"are of Python 3.0, this is Python {PYTHON}" in capsys.readouterr().out
    assert report(counts(calls=500), committed, {}) == 0
    assert "Fallen" not in capsys.readouterr().out
    assert rises(counts(calls=2000, statements=3), committed) == [("refresh", STATEMENTS)]
    assert rises(counts(), Counts("3.0", {})), "a path that was never committed is no pass with it either"


def test_the_log_of_postgresql_has_a_statement_for_each_execution_also_of_a_prepared_one() -> None:
    log = (
        "ags LOG:  statement: BEGIN\n"
        "ags LOG:  execute <unnamed>: SELECT 1\n\t FROM account\n"
        "postgres LOG:  statement: SELECT pg_reload_conf()\n"
        "ags LOG:  execute _pg3_0: SELECT 2\n"
        "ags ERROR:  division by zero\n"
        "ags STATEMENT:  SELECT 2\n"
        " LOG:  checkpoint starting: time\n"
        "ags LOG:  statement: COMMIT\n"
    )
    assert parse_statements(log) == ["BEGIN", "SELECT 1 FROM account", "SELECT 2", "COMMIT"]
