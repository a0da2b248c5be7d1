"""The documents say what is: links lead somewhere, commands and files exist, tables are the code's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ags.api.errors import REGISTRY
from tests.support.database import empty_database
from tests.support.markdown import read_anchors
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BINARY = {".pyc", ".png", ".svg", ".woff2"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in read_anchors(there), f"{page.name} links to {target}"


def _linked_pages(page: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)\s#]+)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if not target.startswith("http")}


INDEX = ROOT / "docs" / "index.md"
DECISIONS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))


def test_the_index_links_to_every_page() -> None:
    assert {*PAGES} - {*DECISIONS, INDEX} - _linked_pages(INDEX) == set()


def test_every_provider_has_a_page_that_the_index_links_to() -> None:
    folders = {app.parent.name for app in ROOT.glob("providers/*/apps.py")}
    assert {"operator_token", "ldap", "radius"} <= folders
    linked = {page.stem for page in _linked_pages(INDEX) if page.parent.name == "providers"}
    assert linked == folders


STATUS = r"(?:accepted|(?:accepted, superseded in part by|superseded by) \[\d{4}\]\(.+\))"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_each_decision_has_a_date_and_a_status(page: Path) -> None:
    title, _, status_line, blank, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert re.fullmatch(rf"Date: \d{{4}}-\d\d-\d\d\. Status: {STATUS}\.", status_line)
    assert not blank


def test_the_list_of_decisions_has_the_title_date_and_status_of_each() -> None:
    rows = re.findall(
        r"^\| \[(.+?)\]\((\d.+?)\) \| (.+?) \| (.+) \|$",
        (ROOT / "docs/decisions/README.md").read_text(),
        re.MULTILINE,
    )
    assert [
        (f"# {title}", name, f"Date: {date}. Status: {status}.") for title, name, date, status in rows
    ] == [(lines[0], page.name, lines[2]) for page in DECISIONS for lines in [page.read_text().splitlines()]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_file_that_is_named_exists(page: Path) -> None:
    from django.core.management import get_commands

    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    for command in re.findall(r"manage\.py ([a-z_]+)", text):
        assert command in get_commands(), f"manage.py {command}"
    if page.parent.name == "decisions":  # a page is not edited after the decision, and files move
        return
    for named in re.findall(
        r"`((?:ags|providers|tenants|tests|docker|examples|docs|requirements)/[\w./-]+)`", text
    ):
        if "*" not in named:
            assert (ROOT / named).exists(), named


def test_every_variable_that_is_named_is_in_the_example_environment() -> None:
    known = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for page in PAGES:
        if page.name == "0007-later.md":  # it names what is not there
            continue
        named = set(re.findall(r"\b(AGS_[A-Z0-9_]+|DATABASE_URL|SECRET_KEY|DEBUG)\b", page.read_text()))
        # Of the tests, and of secrets that a configuration file refers to.
        others = ("AGS_TEST_", "AGS_SECRET_")
        of_deployments = {name.removesuffix("_FILE") for name in named if not name.startswith(others)}
        assert of_deployments - known == set(), page.name


def test_the_page_of_settings_lists_the_variables_of_the_example_environment() -> None:
    known = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/running/settings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(known)


def test_every_page_that_a_message_or_comment_names_exists() -> None:
    """Such as docs/running/database.md, or with a heading: docs/running/database.md, Behind a pooler."""
    code = (
        file for folder in ("ags", "tenants", "providers", "docker") for file in ROOT.glob(f"{folder}/**/*")
    )
    files = [file for file in (*code, ROOT / ".env.example", ROOT / "Makefile") if file.suffix not in BINARY]
    named = {
        match
        for file in files
        if file.is_file()
        for match in re.findall(r'(docs/[\w/-]+\.md)(?:, "?([A-Z][\w ]+))?', file.read_text(encoding="utf-8"))
    }
    assert ("docs/running/database.md", "Behind a pooler") in named
    for page, heading in named:
        assert (ROOT / page).is_file(), page
        if heading:
            assert re.search(rf"^#+ {heading}$", (ROOT / page).read_text(), re.MULTILINE), (page, heading)


def test_the_table_of_errors_is_the_registry() -> None:
    from docs.errors import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "run make openapi"
    for error in REGISTRY:
        assert f"| {error.status.value} | {error.code} | `{error.reason}` |" in page()


def test_the_glossary_is_that_of_the_code() -> None:
    from docs.glossary import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "run make docs"
    for term in (
        "tenant",
        "provider",
        "strategy",
        "service",
        "key",
        "parameter",
        "identity",
        "session token",
    ):
        assert f"\n| {term} | " in page()
    without_docstring = r"^\| [^|]+ \| (?: \||(\w+)\(.* \[`\1`\])"  # empty, or generated: Name(field, …)
    assert not re.search(without_docstring, page(), re.MULTILINE)


@pytest.mark.postgresql
@pytest.mark.timeout(6 * PATIENCE)
def test_the_path_of_a_request_is_that_of_the_code(db: None) -> None:
    with empty_database("request_path") as url:
        command = [sys.executable, "-m", "bench.request_path", "--database", url]
        page = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert page == (ROOT / "docs" / "request-path.md").read_text(encoding="utf-8"), "run make docs"


REASONS = {error.reason: error.status.value for error in REGISTRY}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_reason_stands_beside_its_status(page: Path) -> None:
    """Such as 401 `not_authenticated`, or 403 `account_suspended`, `account_cancelled`."""
    said = re.findall(r"\b([45]\d\d),? \(?(`[a-z_]+`(?:, `[a-z_]+`)*)", page.read_text())
    pairs = [(status, reason) for status, reasons in said for reason in re.findall(r"\w+", reasons)]
    assert [(reason, status) for status, reason in pairs if REASONS.get(reason) != int(status)] == []


def test_every_proof_that_a_call_wants_is_described() -> None:
    document = json.loads((ROOT / "openapi.json").read_text())
    wanted = {
        f"{method} {path}": [name for way in call.get("security", []) for name in way]
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    }
    assert {call: names for call, names in wanted.items() if names} == {
        "post /ags/signOut": ["accessToken"],
        "post /ias/v3/token/actions/refresh": ["refreshToken"],
        "post /oauth/introspect": ["resourceServer"],
        "post /oauth/revoke": ["resourceServer"],
    }
    described = document["components"]["securitySchemes"]
    assert {name: scheme["scheme"] for name, scheme in described.items()} == {
        "accessToken": "bearer",
        "refreshToken": "bearer",
        "resourceServer": "basic",
    }
