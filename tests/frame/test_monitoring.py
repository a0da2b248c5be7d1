"""The alert rules and the dashboard, checked by Prometheus' own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.markdown import read_anchors
from tests.support.markers import skip_unless_installed
from tests.support.monitoring import (
    CONFIG_FILE,
    RULE_TESTS_FILE,
    RULES_FILE,
    alert_rules,
    panel_expressions,
)
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE

pytestmark = [
    pytest.mark.once,
    skip_unless_installed(programs={"promtool": "apt-get install prometheus"}),
]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_pass_their_tests() -> None:
    promtool("check", "rules", RULES_FILE)
    promtool("check", "config", "--syntax-only", CONFIG_FILE)
    promtool("test", "rules", RULE_TESTS_FILE)


def test_each_alert_fires_and_does_not_fire_in_a_test() -> None:
    fires = {
        (case["alertname"], bool(case["exp_alerts"]))
        for test in yaml.safe_load(RULE_TESTS_FILE.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert fires == {(rule["alert"], expected) for rule in alert_rules() for expected in (True, False)}


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(panel_expressions())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: str(rule["alert"]))
def test_the_runbook_of_an_alert_exists(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in read_anchors(ROOT / page)
