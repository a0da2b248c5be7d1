"""A module fits in one reading: 300 lines for code, 400 for tests, with a few exceptions."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT

LIMITS = {"ags": 300, "tenants": 300, "providers": 300, "examples": 300, "tests": 400}

EXCEPTIONS = {
    "ags/api/errors.py": "the table of all errors, of which docs/api.md is generated",
    "ags/explanations/reasons.py": "the table of all reason codes",
}


@pytest.mark.parametrize(("folder", "limit"), LIMITS.items(), ids=LIMITS)
def test_no_module_is_longer_than_its_limit(folder: str, limit: int) -> None:
    modules = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*.py")
        if not {"migrations", "node_modules"} & {*path.parts}
    }
    assert modules
    assert {name: lines for name, lines in modules.items() if lines > limit and name not in EXCEPTIONS} == {}
