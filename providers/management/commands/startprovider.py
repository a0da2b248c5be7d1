"""`manage.py startprovider NAME`: writes a provider that works, to be filled in."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from providers import contract
from providers.registry import strategies

TEMPLATES = Path(__file__).resolve().parent.parent / "startprovider"

NAME = re.compile(r"[a-z][a-z0-9]*+(_[a-z0-9]++)*+")
NAME_MAX_LENGTH = 30
"""Longer names would not fit into the lines of the templates."""

NAV = "      - Adding a provider: adding-a-provider.md\n"
"""The line of mkdocs.yml before which a new page is listed."""


class Command(BaseCommand):
    """Judge the name and the places, and then write all of it."""

    help = (
        "Write a provider that works, to be filled in: the app, its test and its page. As it is, it takes "
        "a code that the operator made with a key; with --upstream, a user name and a password that a "
        "server of the operator judges. Overwrites nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name", help="lower-case letters, digits and single _; it becomes the slug")
        parser.add_argument("--upstream", action="store_true", help="begin with one that asks a server")
        parser.add_argument(
            "--package", metavar="FOLDER", help="write a package of its own there, not into AGS"
        )

    def handle(self, *args: Any, name: str, upstream: bool, package: str | None, **options: Any) -> None:
        """Judge the name, render, write, and say what to do next."""
        root = Path(settings.BASE_DIR)
        if missing := [part for part in ("docs", "tests", "mkdocs.yml") if not (root / part).exists()]:
            raise CommandError(f"This is no checkout of AGS: there is no {missing[0]} beside manage.py.")
        module = name if package else f"providers.{name}"
        _judge(name, module)
        kind = "upstream" if upstream else "code"
        words = _words(name, module)
        files = _of_a_package(kind, words, Path(package)) if package else _of_ags(kind, words, root)
        if taken := [path for path in files if path.exists() and path != root / "mkdocs.yml"]:
            raise CommandError(f"{taken[0]} is there already. Nothing was written.")
        _write(files)
        self.stdout.write("Written:")
        for path in files:
            self.stdout.write(f"  {path.relative_to(root) if path.is_relative_to(root) else path}")
        self.stdout.write(
            _rendered(f"{'package' if package else 'ags'}.txt-tpl", words | {"folder": package})
        )


def _judge(name: str, module: str) -> None:
    """Raise CommandError when there can be no provider of that name."""
    title = _title(name)
    if not NAME.fullmatch(name) or len(name) > NAME_MAX_LENGTH or keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} is no name for a provider: at most {NAME_MAX_LENGTH} lower-case letters and digits, "
            "words separated by single _, and no keyword of Python."
        )
    if name in sys.stdlib_module_names:
        raise CommandError(f"{name!r} is the name of a module of Python's standard library.")
    if {title, f"{title}Parameters", f"{title}Settings", f"{title}Config"} & _KNOWN:
        raise CommandError(f"{name!r} would name its classes like those of the contract.")
    if find_spec(module) is not None:
        raise CommandError(f"There is a module {module} already.")
    if name in strategies():
        raise CommandError(f"There is a provider that calls itself {name!r} already.")


# What the templates import.
_KNOWN = {*contract.__all__, "ProviderConfig", "Any", "Mapping", "Response"}


def _title(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _words(name: str, module: str) -> dict[str, Any]:
    """What the templates are filled with."""
    return {
        "name": name,
        "module": module,
        "title": _title(name),
        "label": name.replace("_", " ").capitalize(),
        "hyphenated": name.replace("_", "-"),
        "providers": f"providers.operator_token,{module}",
        "version": contract.VERSION,
    }


def _of_ags(kind: str, words: Mapping[str, Any], root: Path) -> dict[Path, str]:
    """The files of a provider among those that AGS ships, and mkdocs.yml with its page."""
    name = words["name"]
    listed = (root / "mkdocs.yml").read_text(encoding="utf-8")
    if listed.count(NAV) != 1:
        raise CommandError(f"mkdocs.yml lacks the line {NAV.strip()!r}, before which the page would stand.")
    line = f"      - {words['label']}: providers/{name}.md\n"
    return {
        **_code(kind, words, root / "providers" / name),
        root / "tests" / "providers" / f"test_{name}.py": _rendered(f"{kind}/test.py-tpl", words),
        root / "docs" / "providers" / f"{name}.md": _rendered(f"{kind}/page.md-tpl", words),
        root / "mkdocs.yml": listed.replace(NAV, line + NAV),
    }


def _of_a_package(kind: str, words: Mapping[str, Any], folder: Path) -> dict[Path, str]:
    """The files of a distribution of its own."""
    name = words["name"]
    page = _rendered(f"{kind}/page.md-tpl", words)
    return {
        folder / "pyproject.toml": _rendered("package/pyproject.toml-tpl", words),
        folder / "README.md": _rendered("package/README.md-tpl", {**words, "page": page}),
        **_code(kind, words, folder / name),
        folder / "tests" / f"test_{name}.py": _rendered(f"{kind}/test.py-tpl", words),
    }


def _code(kind: str, words: Mapping[str, Any], folder: Path) -> dict[Path, str]:
    return {
        folder / "__init__.py": "",
        folder / "apps.py": _rendered("apps.py-tpl", words),
        folder / "strategy.py": _rendered(f"{kind}/strategy.py-tpl", words),
    }


def _rendered(template: str, words: Mapping[str, Any]) -> str:
    text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)
    return _sorted_imports(text) if template.endswith(".py-tpl") else text


def _sorted_imports(text: str) -> str:
    """Where the import of a provider stands among others depends on its name."""
    runs = groupby(text.splitlines(keepends=True), lambda line: line.startswith("from "))
    return "".join(line for are_imports, run in runs for line in (sorted(run) if are_imports else run))


def _write(files: Mapping[Path, str]) -> None:
    """Write them all. Raises CommandError."""
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
