"""What a release promises to users of the one before it, and to its processes during an upgrade."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from ags.api.errors import REGISTRY
from tests.support.database import empty_database
from tests.support.server import run_manage
from tests.upgrade.installation import Installation, installations, query
from tests.upgrade.interface import FOLDER, find_breaks, find_commands, find_variables

ROOT = FOLDER.parents[1]
API = json.loads((ROOT / "openapi.json").read_text())

RELEASES = sorted(file.parent.name for file in FOLDER.glob("*/openapi.json"))

PREVIOUS = "fae518b"
"""The release before this one. Its processes run while this one migrates the database and starts."""

COLUMNS = {
    "sqlite": 'SELECT t.name, c.name, c.type, NOT c."notnull", c.dflt_value IS NOT NULL OR c.pk'
    " FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'",
    "postgresql": "SELECT table_name, column_name, data_type, is_nullable = 'YES',"
    " column_default IS NOT NULL OR is_identity = 'YES'"
    " FROM information_schema.columns WHERE table_schema = 'public'",
}
"""Table, column, type, if it may be NULL, and if the database has a value for rows that give none."""

Columns = dict[tuple[str, str], tuple[str, bool, bool]]


@pytest.mark.parametrize("release", RELEASES)
def test_the_api_has_all_that_clients_of_a_release_use(release: str) -> None:
    old = json.loads((FOLDER / release / "openapi.json").read_text())
    assert list(find_breaks(old, API)) == []


@pytest.mark.parametrize("release", RELEASES)
def test_every_error_of_a_release_keeps_its_status_code_and_reason(release: str) -> None:
    errors = json.loads((FOLDER / release / "errors.json").read_text())
    current = [
        {"status": error.status.value, "code": error.code, "reason": error.reason} for error in REGISTRY
    ]
    assert errors
    assert [error for error in errors if error not in current] == []


@pytest.mark.parametrize("release", RELEASES)
def test_every_variable_and_command_of_a_release_is_there(release: str) -> None:
    names = json.loads((FOLDER / release / "names.json").read_text())
    for kind, current in {"variables": find_variables(ROOT), "commands": find_commands(ROOT)}.items():
        assert names[kind], kind
        assert sorted(set(names[kind]) - set(current)) == [], kind


def test_every_release_from_which_an_upgrade_is_tested_has_its_interface() -> None:
    assert {installation.folder.name for installation in installations("sqlite")} == set(RELEASES)
    assert PREVIOUS in RELEASES


SIGN_ON = ("paths", "/ags/signOnWithSessionToken", "post")
SCHEMAS = ("components", "schemas")


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (("paths", "/readyz"), None, "get /readyz: removed"),
        ((*SIGN_ON, "responses", "401"), None, "post /ags/signOnWithSessionToken: status 401 removed"),
        ((*SIGN_ON, "security"), [{"accessToken": []}], "credentials changed"),
        ((*SIGN_ON, "parameters", 2, "required"), True, "parameter x-correlation-id became required"),
        ((*SIGN_ON, "parameters", 0, "name"), "tenant", "parameter nv-tenant-id removed"),
        ((*SCHEMAS, "TokenResponse", "properties", "accountId"), None, "accountId removed"),
        (
            (*SCHEMAS, "TokenResponse", "properties", "expires_in", "type"),
            "string",
            "expires_in: type changed",
        ),
        ((*SCHEMAS, "TokenResponse", "required"), [], "access_token is no longer required"),
        ((*SCHEMAS, "TokenTypeEnum", "enum"), ["DPoP"], "values removed: ['bearer']"),
        (
            (*SCHEMAS, "Discovery", "properties", "availableServices", "items"),
            {"type": "string"},
            "item: type",
        ),
        ((*SCHEMAS, "TokenRequest", "properties", "token", "maxLength"), 1, "length restricted"),
        ((*SCHEMAS, "SignOn", "required"), ["clientId"], "clientId became required"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_break_of_the_api_is_found(place: tuple[str | int, ...], value: Any, line: str) -> None:
    changed = copy.deepcopy(API)
    *folders, last = place
    inner = changed
    for name in folders:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    found = list(find_breaks(API, changed))
    assert any(line in one for one in found), found


def test_additions_to_the_api_are_no_break() -> None:
    larger = copy.deepcopy(API)
    larger["paths"]["/new"] = {"get": {"responses": {}}}
    larger["components"]["schemas"]["TokenResponse"]["properties"]["scope"] = {"type": "string"}
    larger["components"]["schemas"]["TokenResponse"]["required"].append("scope")
    larger["components"]["schemas"]["SignOn"]["properties"]["more"] = {"type": "string"}
    larger["components"]["schemas"]["TokenTypeEnum"]["enum"].append("DPoP")
    assert list(find_breaks(API, larger)) == []


@contextmanager
def empty_url(folder: Path) -> Iterator[str]:
    """Yield the URL of a database without tables."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{folder}/migrated.sqlite3"
    else:
        with empty_database("migrated") as url:
            yield url


def columns(url: str) -> Columns:
    return {
        (table, column): (kind, bool(nullable), bool(default))
        for table, column, kind, nullable, default in query(url, COLUMNS[connection.vendor])
    }


def find_schema_breaks(old: Columns, new: Columns) -> Iterator[str]:
    """Yield a line for each change that fails a process that reads and writes the old columns."""
    tables = {table for table, _ in old}
    for (table, column), (kind, nullable, _) in old.items():
        now = new.get((table, column))
        if now is None:
            yield f"{table}.{column}: removed"
        elif now[0] != kind:
            yield f"{table}.{column}: type changed"
        elif nullable and not now[1]:
            yield f"{table}.{column}: became NOT NULL"
    for (table, column), (_, nullable, default) in new.items():
        if table in tables and (table, column) not in old and not (nullable or default):
            yield f"{table}.{column}: new, NOT NULL and without a default"


@pytest.mark.django_db
def test_the_previous_release_can_use_the_migrated_database(tmp_path: Path) -> None:
    with empty_url(tmp_path) as url:
        installation = Installation(FOLDER / PREVIOUS, connection.vendor)
        installation.load(url)
        before = columns(url)
        migrated = run_manage("migrate", **installation.credentials["environment"], DATABASE_URL=url)
        assert (migrated.returncode, migrated.stderr) == (0, "")
        after = columns(url)
    assert {table for table, _ in before} >= {"tenants_tenant", "ags_sessions_device"}
    assert list(find_schema_breaks(before, after)) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({("t", "a"): None}, "t.a: removed"),
        ({("t", "a"): ("bigint", True, False)}, "t.a: type changed"),
        ({("t", "a"): ("text", False, True)}, "t.a: became NOT NULL"),
        ({("t", "b"): ("text", False, False)}, "t.b: new, NOT NULL and without a default"),
        ({("t", "b"): ("text", False, True)}, None),
        ({("t", "b"): ("text", True, False)}, None),
        ({("new", "b"): ("text", False, False)}, None),
    ],
)
def test_a_break_of_the_schema_is_found(change: dict[tuple[str, str], Any], line: str | None) -> None:
    old: Columns = {("t", "a"): ("text", True, False)}
    new = {key: value for key, value in {**old, **change}.items() if value is not None}
    assert list(find_schema_breaks(old, new)) == ([] if line is None else [line])
