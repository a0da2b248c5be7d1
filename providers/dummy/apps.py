"""Registers the dummy as a provider."""

from providers.apps import ProviderConfig


class DummyConfig(ProviderConfig):
    """A provider for development, which needs no key."""

    default = True
    contract = 2
    name = "providers.dummy"
    strategy = "providers.dummy.strategy.Dummy"
