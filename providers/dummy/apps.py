"""The app configuration of the provider `dummy`."""

from providers.apps import ProviderConfig


class DummyConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.dummy"
    strategy = "providers.dummy.strategy.Dummy"
