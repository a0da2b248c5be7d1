"""The guard of the hot paths (`make bench-check`) knows all of them, and fails when one is worse."""

from __future__ import annotations

import json

from bench.check import COMMITTED, HOT, MARGIN, worse


def test_every_hot_path_has_a_committed_figure_and_one_that_is_worse_is_named() -> None:
    committed = json.loads(COMMITTED.read_text())
    assert set(committed) == set(HOT)
    assert {"getSessionToken", "signOnWithSessionToken", "refresh", "introspection", "discovery"} <= set(HOT)
    assert worse(committed, committed) == []
    within = {path: ratio * (MARGIN - 0.01) for path, ratio in committed.items()}
    assert worse(within, committed) == []
    assert worse({**within, "refresh": committed["refresh"] * (MARGIN + 0.01)}, committed) == ["refresh"]
    assert worse({"new": 1.0}, committed) == ["new"], "what was never measured is no pass"
