"""From the bytes of a YAML file to plain values, strictly: what looks ambiguous is refused.

Of YAML 1.2 this takes the core schema, so that `off`, `no`, `1:30` and a date are text, as they look. What
YAML can do beyond JSON (anchors, tags, merge keys, keys that are no text) is refused: a configuration has no
use for it, and a few lines of anchors can unfold to gigabytes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NAME = 255
"""Characters of a name. It is part of the path of all that is below it."""


class ConfigurationError(Exception):
    """What is wrong in a file, and where: a path such as `tenants[0].keys[1].secret`, or a line."""

    def __init__(self, where: str, sentence: str) -> None:
        super().__init__(f"{where}: {sentence}")


def parse(raw: bytes) -> Any:
    """Return the one YAML document in `raw` as dicts, lists, text, numbers, booleans and None.

    Raises ConfigurationError, which repeats nothing of the values.
    """
    if len(raw) > MAX_BYTES:
        raise ConfigurationError("file", f"larger than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError("file", f"not UTF-8 at byte {error.start}") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(_line(error.problem_mark), f"not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # A character that YAML forbids, or an escape that stands for none.
        raise ConfigurationError(
            "file", "not valid YAML: it holds a character that may not be there"
        ) from None
    return None if node is None else _value(node, "")


def join_path(path: str, name: str) -> str:
    """Return the path of a member."""
    return f"{path}.{name}" if path else name


class _Loader(yaml.SafeLoader):
    """Composes nodes; what may not be there ends it at its line."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call] # the stubs leave it bare
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ConfigurationError(line, "anchors and aliases are not allowed")
        if event.tag is not None:
            raise ConfigurationError(line, "tags are not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(line, f"nested deeper than {MAX_DEPTH}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_INTEGER = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOLEAN = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
# The dumper's YAML 1.1 reads each form as the same type, so that what `export` writes comes back as it was.
for _tag, _form, _first in (
    (_BOOLEAN, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_INTEGER, r"-?(0|[1-9][0-9]{0,17})", "-0123456789"),
    (_FLOAT, r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}([eE][-+][0-9]{1,2})?", "-0123456789"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_form})\Z"), list(_first))


def _line(mark: Any) -> str:
    return "file" if mark is None else f"line {mark.line + 1}"


def _value(node: yaml.Node, path: str) -> Any:
    match node:
        case yaml.SequenceNode(value=members):
            return [_value(member, f"{path}[{place}]") for place, member in enumerate(members)]
        case yaml.MappingNode(value=pairs):
            return _mapping(pairs, path)
        case yaml.ScalarNode(tag=tag, value=text):
            return _scalar(tag, _storable(text, path))
    raise TypeError(node)


def _mapping(pairs: list[tuple[yaml.Node, yaml.Node]], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise ConfigurationError(path or "file", f"a name is not text, at {_line(key.start_mark)}")
        if len(key.value) > MAX_NAME:
            raise ConfigurationError(_line(key.start_mark), f"a name of more than {MAX_NAME} characters")
        name = _storable(key.value, path)
        if name in found:
            raise ConfigurationError(
                join_path(path, name), f"given twice, the second time at {_line(key.start_mark)}"
            )
        found[name] = _value(value, join_path(path, name))
    return found


def _storable(text: str, path: str) -> str:
    # Escapes can write what no database column takes.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(path or "file", "holds a NUL or half a character")
    return text


def _scalar(tag: str, text: str) -> Any:
    if tag == _NULL:
        return None
    if tag == _BOOLEAN:
        return text.lower() == "true"
    if tag == _INTEGER:
        return int(text)
    return float(text) if tag == _FLOAT else text
