"""The app configuration that every provider derives from."""

from django.apps import AppConfig
from django.utils.module_loading import import_string

from providers.contract import Strategy


class ProviderConfig(AppConfig):
    """A provider names the dotted path of its strategy class; everything else is computed from that.

    A subclass must set `default = True`: Django falls back to a plain `AppConfig` without a word when a
    module holds two candidates and neither is marked (the base is one of them, by import).
    """

    default = False
    strategy: str

    def ready(self) -> None:
        """Build the strategy. A provider that cannot be imported stops start-up with its own error."""
        self.instance: Strategy = import_string(self.strategy)()


class ProvidersConfig(AppConfig):
    """The contract itself: brings the system checks of all providers."""

    default = True
    name = "providers"

    def ready(self) -> None:
        from providers import checks  # noqa: F401 - registers the checks
