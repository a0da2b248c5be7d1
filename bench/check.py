"""`make bench-check`: compare the work for a request of each hot path with the committed figures.

Counts Python function calls, SQL statements, and the bytes of requests and responses. These do not depend on
the machine or its load, but only on the code, the Python version and the locked requirements. The work inside
a function is not counted: `make bench` measures CPU time.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TypeVar

import psycopg

from bench import in_process
from bench.in_process import InProcess, Response, exchanges
from bench.systems import ags

COMMITTED = Path(__file__).with_suffix(".json")

HOT = tuple(ags.WORK)

MARGIN = 3
"""Percentage by which a figure may rise."""

WARM_UP, REQUESTS = 20, 20
"""Requests of each path for the warm-up, which fills caches and prepares statements, and for counting."""

NOT_COUNTED = ("bench.", "concurrent.futures", "threading")
"""Modules of this program and of thread pools, whose calls vary with the order of threads."""

TOP_FUNCTIONS, TOP_MODULES = 20, 5
"""The most functions and modules that the output lists."""

PYTHON = "{}.{}".format(*sys.version_info)

CALLS, STATEMENTS = "calls", "statements"
LABELS = {
    CALLS: "Python calls",
    STATEMENTS: "SQL statements",
    "request_bytes": "request bytes",
    "answer_bytes": "answer bytes",
}

DATABASE = "ags"

LOGGING = {
    "log_statement": "all",
    "log_line_prefix": "%d ",
    "log_parameter_max_length": "0",
    "lc_messages": "C",
    # Saves time, and does not change any figure
    "synchronous_commit": "off",
}
"""With these, PostgreSQL logs each statement and its database, but no parameters."""

_STATEMENT = re.compile(rf"^{DATABASE} LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", re.MULTILINE)

_Key = TypeVar("_Key")

Functions = Mapping[str, Mapping[str, int]]
"""Module, qualified name of a function, calls of it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The work for one request."""

    calls: int
    statements: int
    request_bytes: int
    answer_bytes: int
    functions: Functions


@dataclass(frozen=True, slots=True)
class Counts:
    """The figures of each path, and the Python version of the count."""

    python: str
    paths: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class _Sample:
    functions: Counter[tuple[str, str]]
    sql: list[str]
    request_bytes: int
    answer_bytes: int


def main() -> int:
    """Count, and print the table; return 1 if a figure has risen."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write the figures to {COMMITTED.name}")
    write: bool = parser.parse_args().write
    committed = load(COMMITTED.read_text()) if COMMITTED.exists() else Counts(PYTHON, {})
    paths: dict[str, Figures] = {}
    sql: dict[str, list[str]] = {}
    with server() as (running, log):
        for path in HOT:
            paths[path], sql[path] = count(running, log, path)
    now = Counts(PYTHON, paths)
    print(table(now, committed))
    if write:
        COMMITTED.write_text(dump(now))
        print(f"\nWrote {COMMITTED.name}.")
        return 0
    return report(now, committed, sql)


def report(now: Counts, committed: Counts, sql: Mapping[str, list[str]]) -> int:
    """Print what has changed by more than the margin, and why; return 1 if a figure has risen."""
    if now.python != committed.python:
        print(
            f"\nThe committed figures are of Python {committed.python}, this is Python {now.python}: "
            "calls are not compared."
        )
    if fallen := rises(committed, now):
        print(
            f"\nFallen by more than {MARGIN} %: {_list(fallen)}.\n"
            "Run `python -m bench.check --write` and commit the result to keep the improvement."
        )
    risen = rises(now, committed)
    if not risen:
        return 0
    if missing := [path for path in now.paths if path not in committed.paths]:
        print(f"\nNot committed yet: {', '.join(missing)}.")
    if changed := [(path, figure) for path, figure in risen if path in committed.paths]:
        print(f"\nRisen by more than {MARGIN} %: {_list(changed)}.")
    for path, figure in changed:
        if figure == CALLS:
            print(f"\n{path}, functions that are called more often:")
            print("\n".join(explain(now.paths[path].functions, committed.paths[path].functions)))
        if figure == STATEMENTS:
            print(f"\n{path}, SQL statements of one request:")
            print("\n".join(f"  {statement:.100}" for statement in sql[path]))
    print("\nIf this is intended, run `python -m bench.check --write` and commit the result.")
    return 1


def rises(now: Counts, committed: Counts) -> list[tuple[str, str]]:
    """Return the path and the figure of each rise by more than the margin.

    Every figure of a path that is not committed is one. Calls compare only within one Python version.
    """
    compared = [figure for figure in LABELS if figure != CALLS or now.python == committed.python]
    return [
        (path, figure)
        for path, figures in now.paths.items()
        for figure in compared
        if path not in committed.paths
        or getattr(figures, figure) * 100 > getattr(committed.paths[path], figure) * (100 + MARGIN)
    ]


def explain(now: Functions, committed: Functions) -> list[str]:
    """Return lines on the functions that are called more often, by module.

    New functions come first, then those with the most additional calls.
    """
    before, after = _flatten(committed), _flatten(now)
    more = after - before
    modules: dict[str, list[str]] = {}
    for module, name in sorted(more, key=lambda key: (key in before, -more[key], key))[:TOP_FUNCTIONS]:
        modules.setdefault(module, []).append(name)
    lines = []
    for module, names in modules.items():
        lines.append(f"  {module}: {_modules(now)[module]} in total, before {_modules(committed)[module]}")
        for name in names:
            was = before[module, name]
            lines.append(f"    {name}: {after[module, name]}, {f'before {was}' if was else 'new'}")
    if (omitted := len(more) - TOP_FUNCTIONS) > 0:
        lines.append(f"  and {omitted} more functions")
    return lines


def table(now: Counts, committed: Counts) -> str:
    """Return all figures beside the committed ones, with the modules whose calls changed most."""
    lines = [f"{'path':24}{'figure':38}{'now':>8}{'committed':>11}{'change':>9}"]
    for path, figures in now.paths.items():
        before = committed.paths.get(path)
        for figure, label in LABELS.items():
            lines.append(_row(path, label, getattr(figures, figure), getattr(before, figure, None)))
            if figure == CALLS and before is not None and now.python == committed.python:
                lines += _module_rows(figures.functions, before.functions)
            path = ""  # noqa: PLW2901 - only the first row names it
    return "\n".join(lines)


def _module_rows(now: Functions, committed: Functions) -> list[str]:
    after, before = _modules(now), _modules(committed)
    changed = sorted(after.keys() | before.keys(), key=lambda name: (-abs(after[name] - before[name]), name))
    return [
        _row("", f"  in {module}", after[module], before[module])
        for module in changed[:TOP_MODULES]
        if after[module] != before[module]
    ]


def _row(path: str, label: str, now: int, committed: int | None) -> str:
    if committed is None:
        return f"{path:24}{label:38}{now:8}"
    new = "new" if now else "+0.0%"
    change = f"{now / committed - 1:+.1%}" if committed else new
    return f"{path:24}{label:38}{now:8}{committed:11}{change:>9}"


def _list(changes: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{path} ({LABELS[figure]})" for path, figure in changes)


def _flatten(functions: Functions) -> Counter[tuple[str, str]]:
    return Counter(
        {(module, name): number for module, names in functions.items() for name, number in names.items()}
    )


def _modules(functions: Functions) -> Counter[str]:
    return Counter({module: sum(names.values()) for module, names in functions.items()})


def load(text: str) -> Counts:
    """Return the counts that `dump` wrote."""
    counts = json.loads(text)
    return Counts(counts["python"], {path: Figures(**figures) for path, figures in counts["paths"].items()})


def dump(counts: Counts) -> str:
    """Return the counts as JSON, with a line for the functions of each module."""
    text = json.dumps(asdict(counts), indent=2)
    return re.sub(r"\{[^{}]+\}", lambda innermost: json.dumps(json.loads(innermost[0])), text) + "\n"


def count(running: InProcess, log: BinaryIO, path: str) -> tuple[Figures, list[str]]:
    """Return the figures of a path, and the SQL statements of one request.

    Each figure is a median, so work that is done once a second does not count. `log` is that of PostgreSQL.
    """
    [conversation] = ags.WORK[path](running, 1, WARM_UP + REQUESTS)
    # One counter for each thread, because concurrent increments would be lost
    counters: defaultdict[int, Counter[tuple[str, str]]] = defaultdict(Counter)

    def profile(frame: FrameType, event: str, _arg: Any) -> None:
        module: str = frame.f_globals.get("__name__", "?")
        if event == "call" and not module.startswith(NOT_COUNTED):
            counters[threading.get_ident()][module, frame.f_code.co_qualname] += 1

    def respond(request: bytes) -> Response:
        counters.clear()
        log.read()
        return running.respond(request, profile)

    samples = [
        _Sample(
            sum(counters.values(), Counter()),
            parse_statements(log.read().decode()),
            len(request),
            response.size(),
        )
        for request, response in islice(exchanges(conversation, respond), WARM_UP + REQUESTS)
    ][WARM_UP:]
    if len(samples) != REQUESTS:
        raise RuntimeError("too few requests were prepared")
    calls = _medians([sample.functions for sample in samples])
    statements = statistics.median_low(len(sample.sql) for sample in samples)
    figures = Figures(
        calls=sum(calls.values()),
        statements=statements,
        request_bytes=statistics.median_low(sample.request_bytes for sample in samples),
        answer_bytes=statistics.median_low(sample.answer_bytes for sample in samples),
        functions=_by_module(calls),
    )
    return figures, next(sample.sql for sample in samples if len(sample.sql) == statements)


def _medians(counters: list[Counter[_Key]]) -> dict[_Key, int]:
    keys = {key for counter in counters for key in counter}
    return {key: statistics.median_low(counter[key] for counter in counters) for key in keys}


def _by_module(calls: Mapping[tuple[str, str], int]) -> Functions:
    functions: dict[str, dict[str, int]] = {}
    for (module, name), number in sorted(calls.items()):
        if number:
            functions.setdefault(module, {})[name] = number
    return functions


def parse_statements(log: str) -> list[str]:
    """Return the SQL statements in a log of PostgreSQL, each on one line."""
    return [" ".join(text.split()) for text in _STATEMENT.findall(log)]


@contextmanager
def server() -> Iterator[tuple[InProcess, BinaryIO]]:
    """Run AGS in this process; yield it and the log of its PostgreSQL."""
    # Imported here because it warns if XDG_RUNTIME_DIR is not set, and the tests fail on warnings
    from bench import postgresql

    with postgresql.server() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for name, value in LOGGING.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
        settings = ags.environment(server.create(DATABASE), in_process.PORT)
        ags.prepare(settings)
        gc.collect()
        gc.disable()  # finalizers would run in some requests only
        with (
            in_process.discard_stderr(),
            server.log.open("rb") as log,
            in_process.ags(settings) as running,
        ):
            yield running, log


if __name__ == "__main__":
    sys.exit(main())
