"""The app configuration of providers."""

from importlib.util import find_spec

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from providers.contract import VERSION, Strategy
from providers.version_1 import load_strategy


class ProviderConfig(AppConfig):
    """A provider names the dotted path of its strategy class; everything else is computed from that.

    `contract` is the version of the contract (`providers.contract.VERSION`) that it is made for. `requires`
    are the modules that it needs and AGS does not, with what to install for each; a provider that lacks one
    is left out, and start-up says so.

    A subclass must set `default = True`: Django falls back to a plain `AppConfig` without a word when a
    module holds two candidates and neither is marked (the base is one of them, by import).
    """

    default = False
    strategy: str
    contract: int
    requires: dict[str, str] = {}
    instance: Strategy | None = None

    def ready(self) -> None:
        """Build the strategy. A provider that cannot be imported stops start-up with its own error.

        Raises ImproperlyConfigured when it is made for a version of the contract other than 1 and 2.
        """
        made_for = getattr(self, "contract", None)
        if made_for not in {1, VERSION}:
            raise ImproperlyConfigured(
                f"The provider {self.name} is made for version {made_for} of the provider contract, "
                f"and this is version {VERSION}."
            )
        if not self.lacks:
            self.instance = load_strategy(self.strategy) if made_for == 1 else import_string(self.strategy)()

    @property
    def lacks(self) -> dict[str, str]:
        """Return the modules of `requires` that are not installed."""
        return {module: hint for module, hint in self.requires.items() if find_spec(module) is None}


class ProvidersConfig(AppConfig):
    """Registers the system checks of all providers."""

    default = True
    name = "providers"

    def ready(self) -> None:
        from providers import checks  # noqa: F401 - registers the checks
