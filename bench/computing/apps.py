"""Registers the provider."""

from providers.apps import ProviderConfig


class ComputingConfig(ProviderConfig):
    """The provider of `bench.computing`."""

    default = True
    contract = 2
    name = "bench.computing"
    strategy = "bench.computing.strategy.Computing"
