"""Everything that is tested."""

import importlib.util
import os
import shutil

import pytest

NEEDS_POSTGRESQL = "only PostgreSQL can show it"
"""Why a test is left out on SQLite."""

RUN_ONCE = "once"
"""The marker of tests whose result does not depend on the database: `python -m tests` runs them on PostgreSQL
only."""

FULL = "full"
"""The marker of tests that take too long for `make test`; `make test-full` runs them."""

NOT_HERE = "not on this machine: "
"""How the reason begins where something cannot be installed. There is no third."""

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])


def program(name: str) -> str | None:
    """Return the path of a program, also of one that is meant for administrators."""
    return shutil.which(name, path=_PATH)


def needs(
    *, programs: dict[str, str] | None = None, modules: dict[str, str] | None = None
) -> pytest.MarkDecorator:
    """Leave out a test where programs or modules are missing. Each comes with what installs it."""
    lacking = {name: how for name, how in (programs or {}).items() if program(name) is None}
    lacking |= {name: how for name, how in (modules or {}).items() if importlib.util.find_spec(name) is None}
    told = ", ".join(f"{name} ({how})" for name, how in lacking.items())
    return pytest.mark.skipif(bool(lacking), reason=f"{NOT_HERE}{told}")
