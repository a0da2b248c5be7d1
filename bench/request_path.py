"""`python -m bench.request_path`: the path of requests through the code, traced on a warm server.

Prints docs/request-path.md; `--write` writes it, as `make docs` does.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bench import in_process
from bench.in_process import InProcess, Response, exchanges
from bench.systems import ags
from bench.systems.asking import TENANT

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "request-path.md"
PACKAGES = tuple(f"{ROOT}/{name}/" for name in ("ags", "tenants", "providers"))

DATABASE = "ags/database/"
"""The package that executes statements: connections, batches, outages. Its functions are not counted."""

API_REQUESTS = {
    "discovery": "GET /ags/servicediscovery",
    "getSessionToken": "POST /ags/getSessionToken",
    "signOnWithSessionToken": "POST /ags/signOnWithSessionToken",
    "refresh": "POST /ias/v3/token/actions/refresh",
    "introspection": "POST /oauth/introspect",
}
"""The request of each path, by its name in `bench.systems.ags.WORK`."""

WARM_UP, TRACED = 5, 9
"""Requests of each path before tracing, and traced."""

INTRODUCTION = """\
# The path of a request

The functions of AGS that a request calls, in the order of their first call, by file.
This page is generated: `make docs` traces requests to AGS on PostgreSQL, and a test compares.

## What is counted

Functions and methods of `ags/`, `tenants/` and `providers/` that a warm request of the kind calls.
*Warm* means that such requests came before: the tenant is cached, and statements are prepared.
A function that runs only once a second is left out.

- A path of the API begins when `GatewayView.dispatch` is called, and ends when it returns the response.
  A path of the admin begins when its form is validated, and ends when `save()` of the model returns.
  All requests have the rest in common: it is listed once, [below](#around-each-request).
- `ags/database/`, which executes statements, is not counted.
  It is listed [below](#executing-statements), too.
- Django, DRF and other libraries are not listed at all.
  Nor are functions that Python generates, such as comprehensions, lambdas and the `__init__` of
  dataclasses, and the functions by which decorators replace others.
- `return` statements are those in the source of the counted functions, executed or not.
  *Early* are those beyond the first of each function.
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of AGS that a request calls."""

    file: str
    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Definition:
    """A function in the source: the number of its `return` statements, and if it replaces a decorated one."""

    returns: int
    is_wrapper: bool


@dataclass(frozen=True, slots=True)
class Span:
    """A path begins with the first call of a function, and ends with the last return of another."""

    is_first: Callable[[Function], bool]
    is_last: Callable[[Function], bool]


@dataclass(frozen=True, slots=True)
class RequestPath:
    """The functions of a request: those of its path, those around it, and those that execute statements."""

    title: str
    counted: Sequence[Function]
    around: Sequence[Function]
    database: Sequence[Function]


API = Span(
    lambda function: function.name == "GatewayView.dispatch",
    lambda function: function.name == "GatewayView.dispatch",
)
ADMIN = Span(
    lambda function: (
        function.file.startswith("tenants/admin/forms/")
        and function.name.split(".")[-1].startswith(("clean", "to_python"))
    ),
    lambda function: function.file.startswith("tenants/models/") and function.name.endswith(".save"),
)


class Trace:
    """The calls of one request. `profile` is a function for `sys.setprofile`."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Function]] = []
        self._frames: set[FrameType] = set()

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event in {"call", "return"} and frame.f_code.co_filename.startswith(PACKAGES):
            function = find_function(frame.f_code)
            # A coroutine that continues causes another call event, with the same frame.
            if function is not None and (event == "return" or frame not in self._frames):
                self._frames.add(frame)
                self._events.append((event, function))

    def split(self, span: Span) -> tuple[list[Function], list[Function]]:
        """Return the functions called within the span, and the others, in the order of the first call."""
        begin = next(at for at, (_, function) in enumerate(self._events) if span.is_first(function))
        end = max(
            at
            for at, (event, function) in enumerate(self._events)
            if event == "return" and span.is_last(function)
        )
        return _called(self._events[begin:end]), _called(self._events[:begin] + self._events[end:])


def _called(events: Iterable[tuple[str, Function]]) -> list[Function]:
    return list(dict.fromkeys(function for event, function in events if event == "call"))


@cache
def find_function(code: CodeType) -> Function | None:
    """Return a function by its code, or None if Python generated it or it replaces a decorated one."""
    file = code.co_filename.removeprefix(f"{ROOT}/")
    definition = read_definitions(file).get(code.co_firstlineno)
    if code.co_name.startswith("<") or definition is None or definition.is_wrapper:
        return None
    return Function(file, code.co_qualname, code.co_firstlineno)


@cache
def read_definitions(file: str) -> Mapping[int, Definition]:
    """Return the functions that a file defines, by their first line."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): Definition(
            sum(isinstance(child, ast.Return) for child in _own_nodes(node)),
            any(ast.unparse(decorator).startswith("wraps(") for decorator in node.decorator_list),
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own_nodes(child)


def trace_api(running: InProcess, name: str) -> RequestPath:
    """Return the path of a request of the API."""
    [conversation] = ags.WORK[name](running, 1, WARM_UP + TRACED)
    traces: list[Trace] = []

    def respond(request: bytes) -> Response:
        traces.append(Trace())
        return running.respond(request, traces[-1].profile)

    for _ in islice(exchanges(conversation, respond), WARM_UP + TRACED):
        pass
    return make_path(API_REQUESTS[name], traces[WARM_UP:], API)


def trace_admin() -> Iterator[RequestPath]:
    """Yield the paths of forms of the admin, each with one changed setting, that a superuser sends."""
    from django.contrib.auth.models import User
    from django.test import Client
    from django.test.utils import setup_test_environment

    from tenants.models import Service

    setup_test_environment()  # with it, a response has the form of its page
    client = Client(HTTP_HOST="127.0.0.1")
    client.force_login(User.objects.create_superuser("staff"))
    forms = {
        f"/admin/tenants/tenant/{TENANT}/change/": "access_token_ttl",
        f"/admin/tenants/service/{Service.unscoped.get().pk}/change/": "settings-session_token_ttl",
    }
    for url, setting in forms.items():
        traces = []
        for number in range(WARM_UP + TRACED):
            form = client.get(url, secure=True).context["adminform"].form
            values = {field.html_name: field.value() for field in form}
            data = {name: value for name, value in values.items() if value is not None and value is not False}
            traces.append(Trace())
            sys.setprofile(traces[-1].profile)
            response = client.post(url, data | {setting: 600 + number}, secure=True)
            sys.setprofile(None)
            if response.status_code != 302:
                raise RuntimeError(f"{url} was not saved: {response.context['errors']}")
        _, _, _, model, *_ = url.split("/")
        yield make_path(f"POST /admin/tenants/{model}/…/change/", traces[WARM_UP:], ADMIN)


def make_path(title: str, traces: Sequence[Trace], span: Span) -> RequestPath:
    """Return the path that most of the traced requests have in common."""
    within, others = (_common(lists) for lists in zip(*(trace.split(span) for trace in traces), strict=True))
    return RequestPath(
        title,
        [function for function in within if not function.file.startswith(DATABASE)],
        [function for function in others if not function.file.startswith(DATABASE)],
        [function for function in (*within, *others) if function.file.startswith(DATABASE)],
    )


def _common(lists: Sequence[list[Function]]) -> list[Function]:
    """Return the functions of more than half of the lists, in the order that most of them have."""
    calls = Counter(function for functions in lists for function in functions)
    common = {function for function, number in calls.items() if 2 * number > len(lists)}
    orders = Counter(tuple(function for function in functions if function in common) for functions in lists)
    return list(orders.most_common(1)[0][0])


def count_returns(functions: Iterable[Function]) -> tuple[int, int]:
    """Return the number of `return` statements, and of those that are early."""
    numbers = [read_definitions(function.file)[function.line].returns for function in functions]
    return sum(numbers), sum(number - 1 for number in numbers if number)


def render(api: Mapping[str, RequestPath], admin: Sequence[RequestPath]) -> str:
    """Return the page."""
    paths = [*api.values(), *admin]
    parts = [
        INTRODUCTION,
        _summary(paths),
        *(f"## {path.title}\n\n{_table(path.counted)}" for path in paths),
        "## Around each request\n\nOf the API:\n",
        _table(_shared(path.around for path in api.values())),
        "Of the admin:\n",
        _table(_shared(path.around for path in admin)),
        "## Executing statements\n\nA statement, as `getSessionToken` executes it:\n",
        _table(api["getSessionToken"].database),
        "A transaction, as `signOnWithSessionToken` executes it:\n",
        _table(api["signOnWithSessionToken"].database),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _shared(lists: Iterable[Sequence[Function]]) -> list[Function]:
    first, *others = lists
    return [function for function in first if all(function in other for other in others)]


def _summary(paths: Iterable[RequestPath]) -> str:
    rows = ["| path | functions | files | `return` statements | early |", "| --- | --- | --- | --- | --- |"]
    for path in paths:
        files = len({function.file for function in path.counted})
        returns, early = count_returns(path.counted)
        rows.append(f"| `{path.title}` | {len(path.counted)} | {files} | {returns} | {early} |")
    return "\n".join([*rows, ""])


def _table(functions: Iterable[Function]) -> str:
    files: dict[str, list[str]] = {}
    for function in functions:
        files.setdefault(function.file, []).append(f"`{function.name.replace('.<locals>', '')}`")
    rows = [f"| [`{file}`](../{file}) | {', '.join(names)} |" for file, names in files.items()]
    return "\n".join(["| file | functions |", "| --- | --- |", *rows, ""])


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Yield the URL of an empty database: the one that is passed, or one of a PostgreSQL that is started."""
    if url:
        yield url
        return
    from bench import postgresql

    with postgresql.server() as server:
        yield server.create("ags")


def main() -> None:
    """Trace, and print or write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.request_path", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page instead of printing it")
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database to use")
    arguments = parser.parse_args()
    with database(arguments.database) as url:
        settings = ags.environment(url, in_process.PORT)
        ags.prepare(settings)
        with in_process.discard_stderr(), in_process.ags(settings) as running:
            page = render({name: trace_api(running, name) for name in API_REQUESTS}, [*trace_admin()])
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
