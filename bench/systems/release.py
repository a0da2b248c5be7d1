"""A release of AGS, from its archive, with which this checkout is compared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from bench.systems import ROOT, Missing, Running, ags

COMMIT = os.environ.get("BENCH_RELEASE", "fae518b")
"""The release, or another commit that is to be compared."""


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start the release with its own packages. Raises `Missing` if the commit or a package is missing."""
    with tempfile.TemporaryDirectory(prefix="ags-release-") as temporary:
        checkout, packages = Path(temporary) / "checkout", Path(temporary) / "packages"
        _unpack(checkout)
        requirements = checkout / "requirements" / "runtime.txt"
        if not is_satisfied(requirements.read_text()):
            _install(requirements, packages)
        with ags.start(database, checkout, PYTHONPATH=str(packages)) as running:
            yield running


def _unpack(checkout: Path) -> None:
    checkout.mkdir()
    pack, unpack = ["git", "archive", COMMIT], ["tar", "--extract"]
    try:
        archive = subprocess.run(pack, cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise Missing(
            f"commit {COMMIT} is in no git history here: clone the repository with its history"
        ) from None
    subprocess.run(unpack, cwd=checkout, check=True, input=archive)


def is_satisfied(requirements: str) -> bool:
    """Return True if this environment has the locked version of each package."""
    lines = (line.rstrip(" \\") for line in requirements.splitlines() if line[:1].isalnum())
    return all(
        _installed(requirement.name) in requirement.specifier
        for requirement in map(Requirement, lines)
        if requirement.marker is None or requirement.marker.evaluate()
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "0"


def _install(requirements: Path, packages: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    where = [f"--target={packages}", "--require-hashes", f"--requirement={requirements}"]
    try:
        subprocess.run([*pip, *where], check=True)
    except subprocess.CalledProcessError:
        raise Missing(f"pip could not install the packages of commit {COMMIT}") from None


RELEASE = replace(
    ags.AGS,
    name=f"AGS {COMMIT}",
    version=lambda: "from its archive, with the packages of its requirements/runtime.txt",
    start=start,
)
