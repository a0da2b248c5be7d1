"""Serves the names of version 1 next to those of version 2, and translates what a strategy declares."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import copy
from functools import cache, wraps
from importlib import import_module
from inspect import signature
from operator import attrgetter
from typing import Any

from django.forms import Field
from django.utils.module_loading import import_string

from providers.contract import SecretField, Strategy
from providers.version_1.names import KEYWORDS, MEMBERS, MODULES, NAMES

# In version 1, a secret without declared destinations is bound to all other settings of its form, which are
# known only when the form is complete. A strategy of version 2 that leaves this text in its form is refused
# (providers.E009).
_NOT_DECLARED = ("(not declared)",)


def load_strategy(path: str) -> Strategy:
    _install_old_names()
    strategy_class = import_string(path)
    if strategy_class.is_nonblocking:
        strategy_class.blocking = False
    if strategy_class.documents is not Strategy.document_urls:
        strategy_class.document_urls = strategy_class.documents
    _declare_destinations(getattr(strategy_class.Settings, "base_fields", {}))
    strategy: Strategy = strategy_class()
    return strategy


@cache
def _install_old_names() -> None:
    """Add them for the whole process: a provider may also import them later, inside a function."""
    for old, new in MODULES.items():
        sys.modules[old] = import_module(new)
        package, _, name = old.rpartition(".")
        vars(import_module(package)).setdefault(name, sys.modules[old])
    for package, names in NAMES.items():
        import_module(package)
        for module in _modules_of(package):
            _add_aliases(module, package, {old: new for old, new in names.items() if hasattr(module, new)})
    for path, names in MEMBERS.items():
        package, _, name = path.rpartition(".")
        renamed = next(vars(module)[name] for module in _modules_of(package) if name in vars(module))
        _add_aliases(renamed, package, names)
        if not signature(renamed.__init__).parameters.keys().isdisjoint(names.values()):
            renamed.__init__ = _accept_keywords(renamed.__init__, names)
    setattr(Strategy, "is_nonblocking", False)  # noqa: B010 - version 2 does not declare it
    SecretField.__init__ = _accept_no_destination(SecretField.__init__)  # type: ignore[method-assign]


def _modules_of(package: str) -> list[Any]:
    return [module for name, module in [*sys.modules.items()] if f"{name}.".startswith(f"{package}.")]


def _add_aliases(owner: Any, package: str, names: Mapping[str, str]) -> None:
    """Add old names to a module or a class. What only instances have becomes a property."""
    for old, new in names.items():
        value = getattr(owner, new, property(attrgetter(new)))
        keywords = KEYWORDS.get(f"{package}.{new}")
        setattr(owner, old, _accept_keywords(value, keywords) if keywords else value)


def _accept_keywords(function: Any, names: Mapping[str, str]) -> Any:
    @wraps(function)
    def accepting(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{names.get(name, name): value for name, value in kwargs.items()})

    return accepting


def _accept_no_destination(init: Any) -> Any:
    @wraps(init)
    def accepting(self: SecretField, *, sent_to: tuple[str, ...] | None = None, **kwargs: Any) -> None:
        destinations = _NOT_DECLARED if sent_to is None else sent_to
        init(self, **{"destination_settings": destinations, **kwargs})

    return accepting


def _declare_destinations(fields: dict[str, Field]) -> None:
    for name, field in fields.items():
        if isinstance(field, SecretField) and field.destination_settings == _NOT_DECLARED:
            # Copied: other forms may have the same field among other settings.
            fields[name] = own = copy(field)
            own.destination_settings = tuple(other for other in fields if other != name)
