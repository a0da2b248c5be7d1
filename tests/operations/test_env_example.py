"""The file `.env.example`, and the files that read the environment."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from django.db import connection

from tests.support.configuration import (
    EXAMPLE,
    REQUIRED_VARIABLES,
    example_variables,
    run_manage_with,
    variables_in_the_example,
)
from tests.support.paths import ROOT


def code() -> list[Path]:
    return [path for package in ("ags", "providers", "tenants") for path in (ROOT / package).rglob("*.py")]


def variables_in_the_code() -> set[str]:
    """Return the first argument of each call that reads the environment."""
    found = set()
    for node in (node for path in code() for node in ast.walk(ast.parse(path.read_text()))):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="env")) | ast.Name(id="env_str" | "env_list"),
                args=[ast.Constant(value=str(variable)), *_],
            ):
                found.add(variable)
    return found


def test_example_contains_exactly_the_variables_of_the_code() -> None:
    assert variables_in_the_example() == variables_in_the_code()


def test_example_documents_every_variable() -> None:
    blocks = EXAMPLE.split("\n\n")
    assert all(block.startswith("#") for block in blocks)
    assert sum(len(re.findall(r"^[A-Z_]+=", block, re.MULTILINE)) for block in blocks[1:]) == len(blocks) - 1


READS = {
    "ags/env.py": {"name", 'f"{name}_FILE"', ""},  # all names, to find unknown ones
    "ags/asgi.py": {'"DJANGO_SETTINGS_MODULE"'},  # sets the default
    "ags/tracing/__init__.py": {"name"},  # variables of another library
    "ags/tracing/export.py": {"name"},  # the same
    "tenants/management/commands/rotate_signing_key.py": {"variable"},  # named by an option
    "tenants/config_file/secret_refs.py": {"name"},  # a secret reference
}
"""The files that read the environment directly, and what they read."""


def test_only_env_py_reads_the_environment() -> None:
    reads = {}
    for path in code():
        text = path.read_text()
        assert "from os import" not in text, path
        if found := re.findall(r"\bos\.(?:environ|getenv)\b[.\w]*(?:[(\[]([^,)\]]+))?", text):
            reads[str(path.relative_to(ROOT))] = set(found)
    assert reads == READS


def test_example_with_secrets_passes_the_deployment_checks() -> None:
    values = example_variables(
        SECRET_KEY=REQUIRED_VARIABLES["SECRET_KEY"],
        AGS_ENCRYPTION_KEYS=REQUIRED_VARIABLES["AGS_ENCRYPTION_KEYS"],
    )
    done = run_manage_with("check", "--deploy", "--fail-level", "WARNING", **values)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_example_with_a_database_passes_the_deployment_checks(nagra: object) -> None:
    from tests.support.database import database_url

    values = example_variables(
        SECRET_KEY=REQUIRED_VARIABLES["SECRET_KEY"],
        AGS_ENCRYPTION_KEYS=REQUIRED_VARIABLES["AGS_ENCRYPTION_KEYS"],
        DATABASE_URL=database_url(),
    )
    done = run_manage_with("check", "--deploy", "--database", "default", "--fail-level", "WARNING", **values)
    assert (done.returncode, done.stderr) == (0, ""), connection.vendor
