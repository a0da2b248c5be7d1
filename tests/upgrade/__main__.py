"""Make an installation with another commit, and keep it: `python -m tests.upgrade CHECKOUT`.

CHECKOUT is a work tree of that commit (`git worktree add --detach ../old COMMIT`). Its code runs with the
packages of this environment, once on SQLite and once on PostgreSQL. The files are written to a folder of
`tests/upgrade` that is named after the commit: databases, and credentials as JSON.

The script works as staff, operators and clients do: with commands, pages and the API. It writes to the
database for two things only: tokens last for decades, because the files are used for years, and the rotation
of signing keys does not wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.test import override_settings  # noqa: E402

from tests.upgrade.installation import FOLDER, Installation  # noqa: E402
from tests.upgrade.maker import make_on_postgresql, make_on_sqlite  # noqa: E402


def main(checkout: Path) -> None:
    """Make both installations."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    commit = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with override_settings(BASE_DIR=checkout):  # where servers and commands of the tests run
        for vendor, make in {"sqlite": make_on_sqlite, "postgresql": make_on_postgresql}.items():
            installation = Installation(FOLDER / commit, vendor)
            installation.folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="ags-installation-") as folder:
                make(installation, Path(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
