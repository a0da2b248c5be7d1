"""Loads providers made for version 1 of the contract. The release after version 2 removes this package."""

from providers.version_1.adapter import load_strategy
from providers.version_1.report import upgrade_warning

__all__ = ["load_strategy", "upgrade_warning"]
