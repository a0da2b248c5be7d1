"""Tests share helpers through `tests/support/`: no module imports from a test or from a conftest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
MODULES = [path for path in sorted(TESTS.rglob("*.py")) if "node_modules" not in path.parts]


def find_imports(path: Path) -> Iterator[str]:
    """Yield the full name of each imported module, and of each name that is imported from one."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_test_module(name: str) -> bool:
    first, *rest = name.split(".")
    return first == "tests" and any(part == "conftest" or part.startswith("test_") for part in rest)


def test_no_module_imports_from_a_test_or_a_conftest() -> None:
    found = {str(path): [name for name in find_imports(path) if is_test_module(name)] for path in MODULES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "import tests.api.test_oauth",
        "from tests.api import test_oauth",
        "from tests.api.test_oauth import FORMS",
        "from . import test_oauth",
        "from .test_oauth import FORMS",
        "from ..api.test_oauth import FORMS",
        "from tests.conftest import nagra",
        "def test() -> None:\n    from tests import conftest",
    ],
)
def test_each_form_of_import_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    module = tmp_path / "tests" / "api" / "test_new.py"
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    monkeypatch.setattr("tests.frame.test_imports.ROOT", tmp_path)
    (name,) = find_imports(module)
    assert is_test_module(name)
