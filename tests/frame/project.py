"""A copy of the project, for tests that add to it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copied_to(folder: Path) -> Path:
    """Copy the project there, without what is not part of it."""
    left_out = shutil.ignore_patterns(".*", "var", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=left_out)
    return folder


def python_files(project: Path) -> dict[str, str]:
    """A digest of each Python file, by its path in the project."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in project.rglob("*.py")
    }


def run(folder: Path, *words: str, seconds: float = 100, **environment: str) -> str:
    """Run a command in that folder, and return all that it says. Fails when it fails."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-6000:]}"
    return done.stdout


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """The same without these variables."""
    return {name: value for name, value in environment.items() if name not in names}
