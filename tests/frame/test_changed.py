"""`make check` finds the tests of what has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.changed import select_tests

TESTS = {
    Path("tests/tenants/test_snapshot.py"): "from tenants import snapshot as module\n",
    Path("tests/api/test_discovery.py"): "import json\n",
    Path("tests/providers/test_claims.py"): "def test():\n    from providers.claims import MAX_CLOCK_SKEW\n",
    Path("tests/providers/test_contract.py"): "from providers.contract import Identity\n",
}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("tenants/snapshot.py", ["tests/tenants/test_snapshot.py"]),
        ("ags/api/discovery.py", ["tests/api/test_discovery.py"]),
        ("providers/claims.py", ["tests/providers/test_claims.py"]),
        ("providers/contract/__init__.py", ["tests/providers/test_contract.py"]),
        ("tests/api/test_discovery.py", ["tests/api/test_discovery.py"]),
        ("docs/api.md", []),
        ("ags/urls.py", []),
    ],
)
def test_a_test_concerns_what_it_imports_and_what_it_is_named_after(changed: str, found: list[str]) -> None:
    assert [str(path) for path in select_tests({Path(changed)}, TESTS)] == found
