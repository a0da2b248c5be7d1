"""Run the tests of what has changed, on SQLite: `python -m tests.changed [pytest arguments]`.

Changed is what differs from the commit that this branch shares with `origin/main`, committed or not. Its
tests are the changed test files, those that import a changed module, and those that are named after one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.markers import FULL
from tests.support.paths import ROOT


def git(*words: str) -> list[str]:
    """Return the lines that git prints, none if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.splitlines()


def changed() -> set[Path]:
    """Return the files that differ from the shared commit, as paths in the project."""
    base, *_ = [*git("merge-base", "HEAD", "origin/main"), "HEAD"]
    names = [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]
    return {Path(name) for name in names}


def imports(text: str) -> Iterator[str]:
    """Yield the full name of each module that this source imports, or imports a name from."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def select_tests(files: set[Path], tests: dict[Path, str]) -> list[Path]:
    """Return those of the tests, given with their source, that concern one of these files."""
    modules = {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if file.suffix == ".py"
    }
    names = {f"test_{module.rpartition('.')[2]}" for module in modules}
    return sorted(
        test
        for test, source in tests.items()
        if test in files or test.stem in names or not modules.isdisjoint(imports(source))
    )


def main(arguments: list[str]) -> int:
    """Run them; return the exit status of pytest."""
    tests = {path.relative_to(ROOT): path.read_text() for path in ROOT.glob("tests/**/test_*.py")}
    chosen = select_tests(changed(), tests)
    print(f"{len(chosen)} of {len(tests)} test files concern what has changed.", flush=True)
    if not chosen:
        return 0
    words = [sys.executable, "-m", "pytest", "-m", f"not {FULL}", *map(str, chosen), *arguments]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
