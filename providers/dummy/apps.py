"""The app configuration of the provider `dummy`."""

from providers.apps import ProviderConfig


class DummyConfig(ProviderConfig):
    """A provider for development."""

    default = True
    contract = 2
    name = "providers.dummy"
    strategy = "providers.dummy.strategy.Dummy"
