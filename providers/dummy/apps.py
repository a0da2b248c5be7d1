"""Registers the dummy as a provider."""

from providers.apps import ProviderConfig


class DummyConfig(ProviderConfig):
    """The shipped double, for trying the gate without any key."""

    default = True
    contract = 2
    name = "providers.dummy"
    strategy = "providers.dummy.strategy.Dummy"
