"""`python -m bench.request_path`: the path of requests through the code, traced on a warm server.

Prints the functions of AGS that a request calls, in the order of their first call, by file.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from bench.check import REQUESTS, WARM_UP, server
from bench.in_process import InProcess, Response, exchanges
from bench.systems import ags

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(f"{ROOT}/{name}/" for name in ("ags", "tenants", "providers"))

PATHS = ("getSessionToken", "signOnWithSessionToken", "refresh")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of AGS that a request calls."""

    file: str
    name: str
    line: int


def trace(running: InProcess, path: str) -> list[Function]:
    """Return the functions that each of the requests calls, in the order of their first call.

    A function that only some of them call, such as one that runs once a second, is left out.
    """
    [conversation] = ags.WORK[path](running, 1, WARM_UP + REQUESTS)
    called: dict[Function, None] = {}

    def profile(frame: FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGES) and not code.co_name.startswith("<"):
            file = code.co_filename.removeprefix(f"{ROOT}/")
            called[Function(file, code.co_qualname, code.co_firstlineno)] = None

    def respond(request: bytes) -> Response:
        called.clear()
        return running.respond(request, profile)

    traces = [list(called) for _ in islice(exchanges(conversation, respond), WARM_UP + REQUESTS)][WARM_UP:]
    common = set.intersection(*map(set, traces))
    return [function for function in traces[-1] if function in common]


def count_returns(function: Function) -> int:
    """Return the number of `return` statements in the source of a function."""
    return _returns(function.file).get(function.line, 0)


@cache
def _returns(file: str) -> Mapping[int, int]:
    """Return the `return` statements of each function in a file, by its first line."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): sum(
            isinstance(child, ast.Return) for child in _own_nodes(node)
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own_nodes(child)


def render(path: str, functions: list[Function]) -> str:
    """Return the path as a Markdown table: a row for each file, in order."""
    files: dict[str, list[str]] = {}
    for function in functions:
        files.setdefault(function.file, []).append(f"`{function.name}`")
    returns = sum(map(count_returns, functions))
    rows = [f"| `{file}` | {', '.join(names)} |" for file, names in files.items()]
    summary = f"{len(functions)} functions in {len(files)} files, with {returns} `return` statements."
    return "\n".join([f"## {path}", "", summary, "", "| file | functions |", "| --- | --- |", *rows])


def main() -> None:
    """Print the paths."""
    argparse.ArgumentParser(prog="python -m bench.request_path", description=__doc__).parse_args()
    with server() as (running, _):
        for path in PATHS:
            print(render(path, trace(running, path)), end="\n\n")


if __name__ == "__main__":
    main()
