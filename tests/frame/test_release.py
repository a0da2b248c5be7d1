"""The version of AGS has one place, and the changelog describes it."""

from __future__ import annotations

import re
import tomllib
import warnings
from datetime import date
from pathlib import Path

from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

import ags

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SECTIONS = ["Added", "Changed", "Fixed", "Removed", "Security"]

RELEASES = re.findall(r"^## \[(.+)\] - (.+)$", CHANGELOG, re.MULTILINE)


def test_the_package_has_the_version_of_the_code() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # setuptools warns about its own experimental settings
        package = apply_configuration(Distribution(), ROOT / "pyproject.toml")
    assert package.metadata.version == ags.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project


def test_the_changelog_begins_with_the_version_of_the_code() -> None:
    assert RELEASES[0][0] == ags.__version__


def test_every_release_but_the_first_has_a_date_and_the_newest_comes_first() -> None:
    assert len(re.findall(r"^## ", CHANGELOG, re.MULTILINE)) == len(RELEASES)
    (_, newest), *older = RELEASES
    days = [date.fromisoformat(day) for day in ([newest] if newest != "Unreleased" else [])]
    days += [date.fromisoformat(day) for _, day in older]
    assert days == sorted(days, reverse=True)
    versions = [tuple(map(int, version.split("."))) for version, _ in RELEASES]
    assert versions == sorted(set(versions), reverse=True)


def test_the_entries_of_a_release_are_sentences_in_standard_sections() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        names = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert names == [name for name in SECTIONS if name in names]
        entries = re.findall(r"^- .+$", release, re.MULTILINE)
        assert entries
        assert [entry for entry in entries if not entry.endswith(".")] == []
