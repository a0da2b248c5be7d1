"""Each regular expression of ours takes linear time, by its form.

Python cannot count the steps of one. So each keeps to a form in which no text is gone through again:

- A quantifier without an upper bound is possessive: what it has taken is not given back and tried otherwise.
- So is that of a group, unless it is `?`.
- A pattern that is looked for, and not matched from the beginning, has no quantifier without an upper bound:
  else each place of the text could begin a long way that leads nowhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tenants.config_file.yaml_loader import _Loader
from tests.support.paths import ROOT

TREES = [
    ast.parse(file.read_text(), str(file.relative_to(ROOT)))
    for package in ("ags", "tenants", "providers")
    for file in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in file.parts
]
NODES = [node for tree in TREES for node in ast.walk(tree)]

LOOKING = {"search", "finditer", "findall", "sub", "subn", "split", "RegexValidator", "RegexField"}
ALL = {"compile", "match", "fullmatch", *LOOKING}

_UNIT = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_QUANTIFIER = re.compile(r"(\)?)([*+?]|\{\d*,?\d*\})(\+?)")


def called(call: ast.Call) -> tuple[str, str]:
    """Return whose function that is, and which."""
    match call.func:
        case ast.Attribute(value=ast.Name(id=whose), attr=name):
            return whose, name
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "", name
    return "", ""


CALLS = [(node, *called(node)) for node in NODES if isinstance(node, ast.Call)]
LOOKED_FOR = {whose for _, whose, name in CALLS if name in LOOKING}
COMPILED = {
    id(node.value): target.id
    for node in NODES
    if isinstance(node, ast.Assign)
    for target in node.targets
    if isinstance(target, ast.Name)
}


def written(pattern: ast.expr) -> str:
    """Return a pattern as it stands in the code, with `x` for what another constant fills in."""
    match pattern:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(written, parts))
    return "x"


def patterns() -> Iterator[tuple[str, bool]]:
    """Yield each pattern, and whether it is looked for."""
    for call, whose, name in CALLS:
        if name in ALL and (whose == "re" or name.startswith("Regex")):
            yield written(call.args[0]), name in LOOKING or COMPILED.get(id(call)) in LOOKED_FOR
        elif name == "matching" and len(call.args) > 2:
            yield written(call.args[2]), False
    # How they are put together no syntax tree tells.
    for of_a_letter in _Loader.yaml_implicit_resolvers.values():
        for _, compiled in of_a_letter:
            yield compiled.pattern, False


def flaws(pattern: str, is_looked_for: bool) -> list[str]:
    """Return what may make a pattern take more than linear time."""
    form = re.sub(r"\(\?(P<\w+>|:)", "(", _UNIT.sub("x", pattern))
    is_anchored = pattern.startswith(("^", r"\A"))
    found = []
    for group, quantifier, possessive in _QUANTIFIER.findall(form):
        is_unbounded = quantifier in {"*", "+"} or quantifier.endswith(",}")
        if (is_unbounded or (group and quantifier != "?")) and not possessive:
            found.append(f"{group}{quantifier} is not possessive")
        if is_unbounded and is_looked_for and not is_anchored:
            found.append(f"{group}{quantifier} begins at each place")
    return found


FOUND = sorted(set(patterns()))


@pytest.mark.parametrize(("pattern", "is_looked_for"), FOUND, ids=[pattern for pattern, _ in FOUND])
def test_a_pattern_of_ours_is_linear(pattern: str, is_looked_for: bool) -> None:
    assert flaws(pattern, is_looked_for) == []


@pytest.mark.parametrize(
    ("pattern", "is_looked_for"),
    [
        (r'"(?:[^"\\]|\\.)*"', True),  # what the strict JSON parser had
        (r'"(?:[^"\\]|\\.)*+"', True),
        (r'"(d|k)"\s*:', True),
        (r"[a-z]+-[a-z]+", False),
        (r"([a-z]{1,63}\.){1,9}x", False),
        (r"a{2,}", False),
        (r"(?P<name>a|aa)*\Z", False),
    ],
)
def test_a_pattern_that_may_not_be_is_noticed(pattern: str, is_looked_for: bool) -> None:
    assert flaws(pattern, is_looked_for)


def test_every_file_is_looked_at() -> None:
    assert len(FOUND) > 30
    assert "SERVICE_NAME" in LOOKED_FOR
