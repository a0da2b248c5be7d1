"""Markers of tests, and the reasons for which tests are skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

NEEDS_POSTGRESQL = "only PostgreSQL can show it"
"""The reason to skip a test on SQLite."""

RUN_ONCE = "once"
"""The marker of tests whose result does not depend on the database: `python -m tests` runs them on PostgreSQL
only."""

FULL = "full"
"""The marker of tests that take too long for `make test`; `make test-full` runs them."""

NOT_HERE = "not on this machine: "
"""The beginning of the reason if something is not installed. There is no third reason."""

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])


def find_program(name: str) -> str | None:
    """Return the path of a program, including those for administrators."""
    return shutil.which(name, path=_PATH)


def skip_unless_installed(
    *, programs: dict[str, str] | None = None, modules: dict[str, str] | None = None
) -> pytest.MarkDecorator:
    """Skip a test if a program or module is missing. The values are the commands that install them."""
    missing = {name: how for name, how in (programs or {}).items() if find_program(name) is None}
    missing |= {name: how for name, how in (modules or {}).items() if importlib.util.find_spec(name) is None}
    names = ", ".join(f"{name} ({how})" for name, how in missing.items())
    return pytest.mark.skipif(bool(missing), reason=f"{NOT_HERE}{names}")
