"""The alert rules and the dashboard in `docker/`, and the metrics that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.support.paths import ROOT

RULES_FILE = ROOT / "docker" / "prometheus" / "alerts.yaml"
RULE_TESTS_FILE = RULES_FILE.with_name("alerts.test.yaml")
CONFIG_FILE = RULES_FILE.with_name("prometheus.yaml")
DASHBOARD: Mapping[str, Any] = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())

VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$tenant": ".*"}
"""Of the dashboard, with a value as Grafana inserts it."""


def alert_rules() -> list[Mapping[str, Any]]:
    (group,) = yaml.safe_load(RULES_FILE.read_text())["groups"]
    rules: list[Mapping[str, Any]] = group["rules"]
    return rules


def panel_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression: str = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression


def named_metrics() -> set[str]:
    """Return the metrics of AGS that a panel, a rule or a variable of the dashboard names."""
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if "definition" in each]
    expressions = [*panel_expressions(), *(rule["expr"] for rule in alert_rules()), *variables]
    return {name for expression in expressions for name in re.findall(r"\bags_[a-z_]+", expression)}
