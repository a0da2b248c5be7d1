"""`manage.py startprovider NAME`: creates a working provider, with a test and a page, from a template."""

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
NAME_MAX_LENGTH = 30  # longer names would make lines of the templates too long
NAV = "      - Adding a provider: adding-a-provider.md\n"  # in mkdocs.yml; new pages are inserted before it


class Command(BaseCommand):
    help = (
        "Create a working provider to start from: the app, its test and its page. It verifies a code that "
        "the operator computes with a key or, with --upstream, calls a server of the operator that verifies "
        "username and password. Does not overwrite files."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the slug: lower-case letters, digits and single _")
        parser.add_argument("--upstream", action="store_true", help="create a provider that calls a server")
        parser.add_argument("--package", metavar="FOLDER", help="create a separate package in this folder")

    def handle(self, *args: Any, name: str, upstream: bool, package: str | None, **options: Any) -> None:
        root = Path(settings.BASE_DIR)
        if missing := [part for part in ("docs", "tests", "mkdocs.yml") if not (root / part).exists()]:
            raise CommandError(
                f"This is not a checkout of AGS: {missing[0]} is missing in the folder of manage.py."
            )
        module = name if package else f"providers.{name}"
        _check_name(name, module)
        kind = "upstream" if upstream else "code"
        context = {
            "name": name,
            "module": module,
            "title": _title(name),
            "label": name.replace("_", " ").capitalize(),
            "hyphenated": name.replace("_", "-"),
            "providers": f"providers.operator_token,{module}",
            "version": contract.VERSION,
        }
        files = _render_package(kind, context, Path(package)) if package else _render_app(kind, context, root)
        if existing := [path for path in files if path.exists() and path != root / "mkdocs.yml"]:
            raise CommandError(f"{existing[0]} already exists. Nothing was written.")
        try:
            for path, text in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from None
        self.stdout.write("Created:")
        for path in files:
            self.stdout.write(f"  {path.relative_to(root) if path.is_relative_to(root) else path}")
        self.stdout.write(
            _render(f"{'package' if package else 'ags'}.txt-tpl", context | {"folder": package})
        )


def _check_name(name: str, module: str) -> None:
    title = _title(name)
    if not NAME.fullmatch(name) or len(name) > NAME_MAX_LENGTH or keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} is not a valid name: use at most {NAME_MAX_LENGTH} lower-case letters, digits and "
            "single _ between words, and not a keyword of Python."
        )
    if name in sys.stdlib_module_names:
        raise CommandError(f"{name!r} is a module of Python's standard library.")
    if {title, f"{title}Parameters", f"{title}Settings", f"{title}Config"} & _IMPORTED_NAMES:
        raise CommandError(
            f"A class of the provider {name!r} would have the name of a class of the contract."
        )
    if find_spec(module) is not None:
        raise CommandError(f"The module {module} already exists.")
    if name in strategies():
        raise CommandError(f"A provider with the slug {name!r} already exists.")


# The names that the templates import.
_IMPORTED_NAMES = {*contract.__all__, "ProviderConfig", "Any", "Mapping", "Response"}


def _title(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _render_app(kind: str, context: Mapping[str, Any], root: Path) -> dict[Path, str]:
    name = context["name"]
    navigation = (root / "mkdocs.yml").read_text(encoding="utf-8")
    if navigation.count(NAV) != 1:
        raise CommandError(f"mkdocs.yml lacks the line {NAV.strip()!r}, before which the page is inserted.")
    line = f"      - {context['label']}: providers/{name}.md\n"
    return {
        **_render_code(kind, context, root / "providers" / name, root / "tests" / "providers"),
        root / "docs" / "providers" / f"{name}.md": _render(f"{kind}/page.md-tpl", context),
        root / "mkdocs.yml": navigation.replace(NAV, line + NAV),
    }


def _render_package(kind: str, context: Mapping[str, Any], folder: Path) -> dict[Path, str]:
    page = _render(f"{kind}/page.md-tpl", context)
    return {
        folder / "pyproject.toml": _render("package/pyproject.toml-tpl", context),
        folder / "README.md": _render("package/README.md-tpl", {**context, "page": page}),
        **_render_code(kind, context, folder / context["name"], folder / "tests"),
    }


def _render_code(kind: str, context: Mapping[str, Any], folder: Path, tests: Path) -> dict[Path, str]:
    return {
        folder / "__init__.py": "",
        folder / "apps.py": _render("apps.py-tpl", context),
        folder / "strategy.py": _render(f"{kind}/strategy.py-tpl", context),
        tests / f"test_{context['name']}.py": _render(f"{kind}/test.py-tpl", context),
    }


def _render(template: str, context: Mapping[str, Any]) -> str:
    text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(context)
    return _sort_imports(text) if template.endswith(".py-tpl") else text


def _sort_imports(text: str) -> str:
    """Sort each block of imports: the position of the provider's import depends on its name."""
    runs = groupby(text.splitlines(keepends=True), lambda line: line.startswith("from "))
    return "".join(line for are_imports, run in runs for line in (sorted(run) if are_imports else run))
