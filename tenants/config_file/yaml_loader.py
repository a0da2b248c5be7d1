"""A strict YAML parser.

It uses the core schema of YAML 1.2, so that `off`, `no`, `1:30` and dates are strings. YAML features beyond
JSON (anchors, tags, merge keys, keys that are not strings) are rejected: a configuration does not need them,
and a few lines of anchors can expand to gigabytes.

ruamel.yaml would save nothing: with YAML 1.2, it also reads `2026-01-01` as a date, `1_000` as a number,
and accepts anchors, tags and keys of any type.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NAME = 255  # characters of a member name, which is part of the paths in error messages


class ConfigurationError(Exception):
    """An error in a file. `location` is a path such as `tenants[0].keys[1].secret`, or a line."""

    def __init__(self, location: str, message: str) -> None:
        super().__init__(f"{location}: {message}")


def parse_yaml(raw: bytes) -> Any:
    """Parse a single YAML document into dicts, lists, strings, numbers, booleans and None.

    Raises ConfigurationError, whose message contains no values from the file.
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
        # A character that YAML forbids, or an escape of an invalid code point.
        raise ConfigurationError("file", "not valid YAML: it contains an invalid character") from None
    return None if node is None else _convert(node, "")


def join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Loader(yaml.SafeLoader):
    """Composes nodes, and rejects anchors, aliases, tags and deep nesting."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call] # untyped in the stubs
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


_TAG = "tag:yaml.org,2002:"
_SCALARS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    f"{_TAG}bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    f"{_TAG}null": (r"~|null|Null|NULL|", lambda text: None),
    f"{_TAG}int": (r"-?(0|[1-9][0-9]{0,17})", int),
    f"{_TAG}float": (r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}([eE][-+][0-9]{1,2})?", float),
}
"""Pattern and converter, by tag. All other scalars are strings."""

# Each pattern has the same type in the YAML 1.1 of the dumper, so that `export` and `apply` round-trip.
for _tag, (_pattern, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})\Z"), None)


def _line(mark: Any) -> str:
    return "file" if mark is None else f"line {mark.line + 1}"


def _convert(node: yaml.Node, path: str) -> Any:
    match node:
        case yaml.SequenceNode(value=members):
            return [_convert(member, f"{path}[{index}]") for index, member in enumerate(members)]
        case yaml.MappingNode(value=pairs):
            return _convert_mapping(pairs, path)
    text = _check_storable(node.value, path)
    if node.tag not in _SCALARS:
        return text
    _, convert = _SCALARS[node.tag]
    return convert(text)


def _convert_mapping(pairs: list[tuple[yaml.Node, yaml.Node]], path: str) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
            raise ConfigurationError(path or "file", f"a name is not a string, at {_line(key.start_mark)}")
        if len(key.value) > MAX_NAME:
            raise ConfigurationError(_line(key.start_mark), f"a name has more than {MAX_NAME} characters")
        name = _check_storable(key.value, path)
        if name in members:
            raise ConfigurationError(join_path(path, name), f"duplicate, at {_line(key.start_mark)}")
        members[name] = _convert(value, join_path(path, name))
    return members


def _check_storable(text: str, path: str) -> str:
    # Escapes can produce characters that the database cannot store.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(path or "file", "contains a NUL character or an unpaired surrogate")
    return text
