"""Keep what users of a release rely on: `python -m tests.upgrade.interface CHECKOUT`.

CHECKOUT is a work tree of the release. The API description, the table of errors, and the names of environment
variables and commands are written to the folder of `tests/upgrade` that is named after the commit.
`test_compatibility.py` compares the current ones with them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CODE = ("ags", "tenants", "providers")

Document = dict[str, Any]

_ERROR = re.compile(r"^\| (\d{3}) \| (\d{5}) \| `([a-z_]+)` \|", re.MULTILINE)
_VARIABLE = re.compile(r"^#? ?([A-Z_]+)=", re.MULTILINE)


def find_variables(checkout: Path) -> list[str]:
    """Return the names of the environment variables that a checkout documents."""
    return sorted(set(_VARIABLE.findall((checkout / ".env.example").read_text())))


def find_commands(checkout: Path) -> list[str]:
    """Return the names of the commands of `manage.py` that a checkout adds."""
    files = checkout.glob("*/**/management/commands/[!_]*.py")
    return sorted({file.stem for file in files if file.relative_to(checkout).parts[0] in CODE})


def save(checkout: Path) -> None:
    """Write `openapi.json` and `errors.json` of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    commit = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    folder = FOLDER / commit
    folder.mkdir(exist_ok=True)
    (folder / "openapi.json").write_text((checkout / "openapi.json").read_text())
    errors = [
        {"status": int(status), "code": int(code), "reason": reason}
        for status, code, reason in _ERROR.findall((checkout / "docs" / "api.md").read_text())
    ]
    lines = ",\n".join(map(json.dumps, errors))
    (folder / "errors.json").write_text(f"[\n{lines}\n]\n")
    names = {"variables": find_variables(checkout), "commands": find_commands(checkout)}
    (folder / "names.json").write_text(json.dumps(names, indent=1) + "\n")


def find_breaks(old: Document, new: Document) -> Iterator[str]:
    """Yield a line for each thing that a client of `old` relies on and `new` does not have.

    Both are OpenAPI documents. Texts and names of schemas do not count.
    """
    for path, methods in old["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield f"{where}: removed"
            else:
                yield from _Comparison(old, new).operations(operation, now, where)


class _Comparison:
    """`is_request` is True for what clients send, which may not be restricted. Responses may only grow."""

    def __init__(self, old: Document, new: Document) -> None:
        self.old, self.new = old, new

    def operations(self, old: Document, new: Document, where: str) -> Iterator[str]:
        parameters = {self._key(one): one for one in new.get("parameters", [])}
        known = {self._key(one): one for one in old.get("parameters", [])}
        for key, parameter in known.items():
            if key not in parameters:
                yield f"{where}: parameter {key[1]} removed"
            else:
                yield from self.schemas(
                    parameter["schema"],
                    parameters[key]["schema"],
                    f"{where}: parameter {key[1]}",
                    is_request=True,
                )
        for key, parameter in parameters.items():
            if parameter.get("required", False) and not known.get(key, {}).get("required", False):
                yield f"{where}: parameter {key[1]} became required"
        yield from self.contents(
            old.get("requestBody", {}), new.get("requestBody", {}), f"{where}: body", is_request=True
        )
        if old.get("security", []) != new.get("security", []):
            yield f"{where}: credentials changed"
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where}: status {status} removed"
            else:
                place = f"{where}: {status}"
                yield from self.contents(response, new["responses"][status], place, is_request=False)

    def contents(self, old: Document, new: Document, where: str, *, is_request: bool) -> Iterator[str]:
        for media_type, content in old.get("content", {}).items():
            now = new.get("content", {}).get(media_type)
            if now is None:
                yield f"{where}: {media_type} removed"
            else:
                yield from self.schemas(content["schema"], now["schema"], where, is_request=is_request)

    def schemas(self, old: Document, new: Document, where: str, *, is_request: bool) -> Iterator[str]:
        old, new = self._resolve(self.old, old), self._resolve(self.new, new)
        for keyword in ("type", "format", "pattern"):
            if old.get(keyword) != new.get(keyword):
                yield f"{where}: {keyword} changed"
        if removed := set(old.get("enum", ())) - set(new.get("enum", ())):
            yield f"{where}: values removed: {sorted(removed)}"
        if is_request and (
            new.get("maxLength", float("inf")) < old.get("maxLength", float("inf"))
            or new.get("minLength", 0) > old.get("minLength", 0)
        ):
            yield f"{where}: length restricted"
        required, was_required = set(new.get("required", ())), set(old.get("required", ()))
        changed = required - was_required if is_request else was_required - required
        for name in sorted(changed):
            yield f"{where}: {name} {'became' if is_request else 'is no longer'} required"
        for name, schema in old.get("properties", {}).items():
            if name not in new.get("properties", {}):
                yield f"{where}: {name} removed"
            else:
                inner = new["properties"][name]
                yield from self.schemas(schema, inner, f"{where}: {name}", is_request=is_request)
        if "items" in old and "items" in new:
            yield from self.schemas(old["items"], new["items"], f"{where}: item", is_request=is_request)

    @staticmethod
    def _key(parameter: Document) -> tuple[str, str]:
        return parameter["in"], parameter["name"].lower()

    @staticmethod
    def _resolve(document: Document, schema: Document) -> Document:
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    save(Path(sys.argv[1]).resolve())
