"""`manage.py startprovider`: what it writes is in order, and it writes over nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

ROOT = Path(__file__).resolve().parents[2]
LONGEST = "abcdefghijklmnopqrstuvwxyz_123"


@pytest.fixture
def checkout(tmp_path: Path, settings: Any) -> Path:
    """As much of the project as the command and the linter look at."""
    folder = tmp_path / "checkout"
    for part in ("docs/providers", "tests/providers"):
        (folder / part).mkdir(parents=True)
    for part in ("providers", "tests/upstream"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("mkdocs.yml", "pyproject.toml", "tests/waiting.py"):
        shutil.copy(ROOT / part, folder / part)
    settings.BASE_DIR = folder
    return folder


def start(*words: str) -> str:
    said = StringIO()
    call_command("startprovider", *words, stdout=said)
    return said.getvalue()


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
def test_it_writes_a_provider_into_ags(checkout: Path, kind: tuple[str, ...], name: str) -> None:
    before = files_of(checkout)
    said = start(name, *kind)
    new = {
        *(f"providers/{name}/{file}.py" for file in ("__init__", "apps", "strategy")),
        f"tests/providers/test_{name}.py",
        f"docs/providers/{name}.md",
    }
    assert files_of(checkout) - before == new
    assert all(file in said for file in new)
    assert f"AGS_PROVIDERS=providers.operator_token,providers.{name}\n" in said
    pages = (checkout / "mkdocs.yml").read_text()
    assert pages.count(f": providers/{name}.md\n") == 1
    assert_neat(checkout)


@KINDS
@pytest.mark.parametrize("name", ["voucher", "a", "zeta_2", LONGEST])
def test_it_writes_a_package_and_leaves_ags_alone(
    checkout: Path, tmp_path: Path, kind: tuple[str, ...], name: str
) -> None:
    before = {file: (checkout / file).read_bytes() for file in files_of(checkout)}
    folder = tmp_path / "new" / "package"
    said = start(name, *kind, "--package", str(folder))
    assert {file: (checkout / file).read_bytes() for file in files_of(checkout)} == before
    assert files_of(folder) == {
        "pyproject.toml",
        "README.md",
        *(f"{name}/{file}.py" for file in ("__init__", "apps", "strategy")),
        f"tests/test_{name}.py",
    }
    assert f"AGS_PROVIDERS=providers.operator_token,{name}\n" in said
    assert_neat(folder)


# words, what is said
REFUSED = {
    "nothing": ([""], "'' is no name for a provider"),
    "upper case": (["Voucher"], "is no name for a provider"),
    "a hyphen": (["a-voucher"], "is no name for a provider"),
    "a dot": (["a.voucher"], "is no name for a provider"),
    "a way out": (["../voucher"], "is no name for a provider"),
    "a digit first": (["2fa"], "is no name for a provider"),
    "two underscores": (["a__b"], "is no name for a provider"),
    "an underscore last": (["a_"], "is no name for a provider"),
    "letters of other scripts": (["gutschön"], "is no name for a provider"),
    "a line break": (["voucher\n"], "is no name for a provider"),
    "too long": ([f"{LONGEST}4"], "at most 30"),
    "a keyword": (["class"], "no keyword of Python"),
    "the standard library": (["json"], "standard library"),
    "the standard library, as a package": (["json", "--package=x"], "standard library"),
    "a tool": (["jose"], "There is a module providers.jose already"),
    "a provider": (["dummy"], "There is a module providers.dummy already"),
    "the slug of a provider": (["dummy", "--package=x"], "a provider that calls itself 'dummy' already"),
    "one of ours, as a package": (["tenants", "--package=x"], "There is a module tenants already"),
    "a library, as a package": (["django", "--package=x"], "There is a module django already"),
    "a class of the contract": (["identity"], "like those of the contract"),
    "settings of the contract": (["session_token"], "like those of the contract"),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_a_name_that_cannot_be_is_refused(checkout: Path, words: list[str], told: str) -> None:
    before = files_of(checkout)
    with pytest.raises(CommandError) as refused:
        start(*words)
    assert told in str(refused.value)
    assert files_of(checkout) == before


@pytest.mark.parametrize("file", ["tests/providers/test_voucher.py", "docs/providers/voucher.md"])
def test_nothing_is_written_over(checkout: Path, file: str) -> None:
    (checkout / file).write_text("mine")
    before = files_of(checkout)
    with pytest.raises(CommandError, match="is there already"):
        start("voucher")
    assert files_of(checkout) == before
    assert (checkout / file).read_text() == "mine"


@pytest.mark.parametrize("file", ["README.md", "pyproject.toml", "voucher/apps.py", "tests/test_voucher.py"])
def test_nothing_of_a_package_is_written_over(checkout: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "package"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("mine")
    with pytest.raises(CommandError, match="is there already"):
        start("voucher", "--package", str(folder))
    assert files_of(folder) == {file}
    assert (folder / file).read_text() == "mine"


@pytest.mark.parametrize("part", ["docs", "tests", "mkdocs.yml"])
def test_where_ags_is_installed_and_no_checkout_it_says_so(checkout: Path, part: str) -> None:
    (checkout / part).rename(checkout / "gone")
    with pytest.raises(CommandError, match=f"This is no checkout of AGS: there is no {part} beside"):
        start("voucher")


def test_a_list_of_pages_that_it_does_not_know_is_left_alone(checkout: Path) -> None:
    (checkout / "mkdocs.yml").write_text("site_name: another\n")
    before = files_of(checkout)
    with pytest.raises(CommandError, match=r"mkdocs\.yml lacks the line"):
        start("voucher")
    assert files_of(checkout) == before


def test_where_it_may_not_write_it_says_so(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"Not a directory|File exists"):
        start("voucher", "--package", str(tmp_path / "file"))
