"""Registers `line` as a provider."""

from providers.apps import ProviderConfig


class LineConfig(ProviderConfig):
    """Line."""

    default = True
    contract = 1
    name = "line"
    strategy = "line.strategy.Line"
