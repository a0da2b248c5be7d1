"""Registers the provider."""

from providers.apps import ProviderConfig


class ComputingConfig(ProviderConfig):
    """A provider of the benchmark."""

    default = True
    contract = 2
    name = "bench.computing"
    strategy = "bench.computing.strategy.Computing"
