"""Reports what a provider made for version 1 has to change: the old names that its modules use."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from django.apps import AppConfig
from django.core.checks import Warning

from providers.version_1.names import KEYWORDS, MEMBERS, MODULES, NAMES


def upgrade_warning(config: AppConfig) -> Warning:
    hint = "Follow docs/upgrading-providers.md, and set `contract = 2`."
    for path in sorted(Path(config.path).rglob("*.py")):
        if names := find_old_names(path.read_bytes()):
            changes = ", ".join(f"{old} -> {new}" for old, new in sorted(names.items()))
            hint += f"\n\t{path.relative_to(config.path)}: {changes}"
    return Warning(
        f"{config.name} is made for version 1 of the provider contract, which the next release refuses.",
        hint=hint,
        id="providers.W002",
    )


def find_old_names(source: bytes) -> dict[str, str]:
    """Return the old names that a module uses, each with its new name.

    Only what the source proves: imports, attributes and keyword arguments of imported names and of their
    subclasses, and attributes of variables whose class the source states. Nothing if it is not valid Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    module = _Module(tree)
    moved = {path: MODULES[path] for path in module.imported_modules() if path in MODULES}
    return moved | dict(change for path in module.used_paths() if (change := _change(path)))


class _Module:
    """A parsed module. A path is what version 1 has there: `providers.contract.Outage.SLOW`."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._known = {name: path for node in self._nodes for name, path in _imports(node)}
        for node in self._nodes:
            if isinstance(node, ast.ClassDef):
                # A subclass has the attributes and keyword arguments of its base.
                self._known.update((node.name, path) for base in node.bases for path in self._paths(base))

    def imported_modules(self) -> Iterator[str]:
        for node in self._nodes:
            match node:
                case ast.Import(names=aliases):
                    yield from (alias.name for alias in aliases)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module

    def used_paths(self) -> Iterator[str]:
        """Yield the path of each imported name, and of each attribute and keyword argument of one."""
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                yield from (path for _, path in _imports(node))
            elif isinstance(node, ast.Attribute):
                yield from self._paths(node)
            for classes, members in _members(node):
                yield from (f"{path}.{member}" for member in members for path in self._paths(classes))

    def _paths(self, expression: ast.expr) -> list[str]:
        """Return what an expression refers to: the paths of a tuple or a union, one, or none."""
        match expression:
            case ast.Name(id=name) if name in self._known:
                return [self._known[name]]
            case ast.Attribute(value=owner, attr=name):
                return [f"{path}.{name}" for path in self._paths(owner)]
            case ast.Tuple(elts=parts):
                return [path for part in parts for path in self._paths(part)]
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return [*self._paths(left), *self._paths(right)]
            case ast.Subscript(value=generic):
                return self._paths(generic)
        return []


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, each with its path. `import providers.jose` binds `providers`."""
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                package = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (package, package)
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in aliases)


def _members(node: ast.AST) -> Iterator[tuple[ast.expr, Iterable[str]]]:
    """Yield the classes that a node names, with the attributes and keyword arguments that it uses of them."""
    match node:
        case ast.Call(func=called, keywords=keywords):
            yield called, [keyword.arg for keyword in keywords if keyword.arg]
        case ast.MatchClass(cls=matched, kwd_attrs=attributes):
            yield matched, attributes
        case ast.ClassDef(bases=bases, body=body):
            yield from ((base, [*_defined(body), *_attributes(node, "self")]) for base in bases)
        case ast.ExceptHandler(type=ast.expr() as caught, name=str(variable)):
            yield caught, _attributes(node, variable)
        case ast.FunctionDef(args=ast.arguments(args=arguments, kwonlyargs=keyword_only)):
            for argument in (*arguments, *keyword_only):
                if argument.annotation:
                    yield argument.annotation, _attributes(node, argument.arg)


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def _attributes(scope: ast.AST, variable: str) -> Iterator[str]:
    for node in ast.walk(scope):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == variable:
                yield attribute


def _change(path: str) -> tuple[str, str] | None:
    """Return what a path is called in each version, as it is written; None if that is the same."""
    new_path = _new_path(path)
    if new_path == MODULES.get(path):
        return path, new_path
    (owner, _, old), (new_owner, _, new) = path.rpartition("."), new_path.rpartition(".")
    if old == new:
        return None
    if _names_in(new_owner) not in NAMES.values():
        old, new = (f"{one.rpartition('.')[2]}.{name}" for one, name in ((owner, old), (new_owner, new)))
    return old, f"not {new}" if path.endswith(".is_nonblocking") else new


def _new_path(path: str) -> str:
    owner, _, name = path.rpartition(".")
    new_owner = _new_path(owner) if owner else ""
    names = _names_in(new_owner)
    if name not in names and path in MODULES:
        return MODULES[path]
    return f"{new_owner}.{names.get(name, name)}" if owner else path


def _names_in(owner: str) -> Mapping[str, str]:
    """Return the old names of what a module, a class or a call has, each with its new name."""
    package = next((one for one in NAMES if f"{owner}.".startswith(f"{one}.")), "")
    name = f"{package}.{owner.rpartition('.')[2]}"
    if name in MEMBERS or name in KEYWORDS:
        return MEMBERS.get(name) or KEYWORDS[name]
    return NAMES.get(package, {}) if owner.islower() else {}
