"""`manage.py startprovider`: the created files are formatted, and no file is overwritten."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.support.paths import ROOT

LONGEST = "abcdefghijklmnopqrstuvwxyz_123"


@pytest.fixture
def checkout(tmp_path: Path, settings: Any) -> Path:
    """Return a copy of the files that the command and the linter need."""
    folder = tmp_path / "checkout"
    for part in ("docs/providers", "tests/providers"):
        (folder / part).mkdir(parents=True)
    for part in ("providers", "tests/support/upstream"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for part in ("mkdocs.yml", "pyproject.toml", "tests/support/markers.py", "tests/support/waiting.py"):
        shutil.copy(ROOT / part, folder / part)
    settings.BASE_DIR = folder
    return folder


def start(*words: str) -> str:
    output = StringIO()
    call_command("startprovider", *words, stdout=output)
    return output.getvalue()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_neat(folder: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout


KINDS = pytest.mark.parametrize("kind", [(), ("--upstream",)], ids=["code", "upstream"])


@KINDS
@pytest.mark.parametrize("name", ["voucher", "a", "zeta_2", LONGEST])
def test_creates_a_provider_inside_ags(checkout: Path, kind: tuple[str, ...], name: str) -> None:
    before = files_of(checkout)
    output = start(name, *kind)
    new = {
        *(f"providers/{name}/{file}.py" for file in ("__init__", "apps", "strategy")),
        f"tests/providers/test_{name}.py",
        f"docs/providers/{name}.md",
    }
    assert files_of(checkout) - before == new
    assert all(file in output for file in new)
    assert f"AGS_PROVIDERS=providers.operator_token,providers.{name}\n" in output
    pages = (checkout / "mkdocs.yml").read_text()
    assert pages.count(f": providers/{name}.md\n") == 1
    assert_neat(checkout)


@KINDS
@pytest.mark.parametrize("name", ["voucher", "a", "zeta_2", LONGEST])
def test_creates_a_package_and_does_not_change_ags(
    checkout: Path, tmp_path: Path, kind: tuple[str, ...], name: str
) -> None:
    before = {file: (checkout / file).read_bytes() for file in files_of(checkout)}
    folder = tmp_path / "new" / "package"
    output = start(name, *kind, "--package", str(folder))
    assert {file: (checkout / file).read_bytes() for file in files_of(checkout)} == before
    assert files_of(folder) == {
        "pyproject.toml",
        "README.md",
        *(f"{name}/{file}.py" for file in ("__init__", "apps", "strategy")),
        f"tests/test_{name}.py",
    }
    assert f"AGS_PROVIDERS=providers.operator_token,{name}\n" in output
    assert_neat(folder)


# arguments, part of the message
REJECTED = {
    "nothing": ([""], "'' is not a valid name"),
    "upper case": (["Voucher"], "is not a valid name"),
    "a hyphen": (["a-voucher"], "is not a valid name"),
    "a dot": (["a.voucher"], "is not a valid name"),
    "a parent folder": (["../voucher"], "is not a valid name"),
    "a digit first": (["2fa"], "is not a valid name"),
    "two underscores": (["a__b"], "is not a valid name"),
    "an underscore last": (["a_"], "is not a valid name"),
    "letters of other scripts": (["gutschön"], "is not a valid name"),
    "a line break": (["voucher\n"], "is not a valid name"),
    "too long": ([f"{LONGEST}4"], "at most 30"),
    "a keyword": (["class"], "not a keyword of Python"),
    "the standard library": (["json"], "standard library"),
    "the standard library, as a package": (["json", "--package=x"], "standard library"),
    "a tool": (["jose"], "The module providers.jose already exists"),
    "a provider": (["dummy"], "The module providers.dummy already exists"),
    "the slug of a provider": (["dummy", "--package=x"], "A provider with the slug 'dummy' already exists"),
    "one of ours, as a package": (["tenants", "--package=x"], "The module tenants already exists"),
    "a library, as a package": (["django", "--package=x"], "The module django already exists"),
    "a class of the contract": (["identity"], "the name of a class of the contract"),
    "settings of the contract": (["session_token"], "the name of a class of the contract"),
}


@pytest.mark.parametrize(("words", "message"), REJECTED.values(), ids=REJECTED)
def test_an_invalid_name_is_rejected(checkout: Path, words: list[str], message: str) -> None:
    before = files_of(checkout)
    with pytest.raises(CommandError) as raised:
        start(*words)
    assert message in str(raised.value)
    assert files_of(checkout) == before


@pytest.mark.parametrize("file", ["tests/providers/test_voucher.py", "docs/providers/voucher.md"])
def test_no_file_of_ags_is_overwritten(checkout: Path, file: str) -> None:
    (checkout / file).write_text("mine")
    before = files_of(checkout)
    with pytest.raises(CommandError, match="already exists"):
        start("voucher")
    assert files_of(checkout) == before
    assert (checkout / file).read_text() == "mine"


@pytest.mark.parametrize("file", ["README.md", "pyproject.toml", "voucher/apps.py", "tests/test_voucher.py"])
def test_no_file_of_a_package_is_overwritten(checkout: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "package"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("mine")
    with pytest.raises(CommandError, match="already exists"):
        start("voucher", "--package", str(folder))
    assert files_of(folder) == {file}
    assert (folder / file).read_text() == "mine"


@pytest.mark.parametrize("part", ["docs", "tests", "mkdocs.yml"])
def test_requires_a_checkout(checkout: Path, part: str) -> None:
    (checkout / part).rename(checkout / "gone")
    with pytest.raises(CommandError, match=f"This is not a checkout of AGS: {part} is missing"):
        start("voucher")


def test_an_unexpected_mkdocs_file_is_not_changed(checkout: Path) -> None:
    (checkout / "mkdocs.yml").write_text("site_name: another\n")
    before = files_of(checkout)
    with pytest.raises(CommandError, match=r"mkdocs\.yml lacks the line"):
        start("voucher")
    assert files_of(checkout) == before


def test_an_error_while_writing_is_reported(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"Not a directory|File exists"):
        start("voucher", "--package", str(tmp_path / "file"))
