"""The app configuration of providers."""

from importlib.util import find_spec

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from providers.contract import VERSION, Strategy
from providers.version_1 import load_strategy


class ProviderConfig(AppConfig):
    """A provider: a Django app with one strategy. Base class of the app configurations of providers.

    `strategy` is the dotted path of the strategy class. `contract` is the version of the contract that the
    provider is made for (`providers.contract.VERSION`). `requires` maps the modules that the provider needs
    and AGS does not to the command that installs them; if one is missing, the provider is not loaded
    (providers.W001).

    A subclass must set `default = True`. Otherwise `apps.py` has two candidates, the subclass and this
    imported class, and Django silently uses a plain `AppConfig`.
    """

    default = False
    strategy: str
    contract: int
    requires: dict[str, str] = {}
    instance: Strategy | None = None

    def ready(self) -> None:
        """Create the strategy. An error while importing it stops start-up."""
        contract = getattr(self, "contract", None)
        if contract not in {1, VERSION}:
            raise ImproperlyConfigured(
                f"The provider {self.name} is made for version {contract} of the provider contract. "
                f"AGS supports versions 1 and {VERSION}."
            )
        if not self.missing_modules:
            self.instance = load_strategy(self.strategy) if contract == 1 else import_string(self.strategy)()

    @property
    def missing_modules(self) -> dict[str, str]:
        return {module: hint for module, hint in self.requires.items() if find_spec(module) is None}


class ProvidersConfig(AppConfig):
    default = True
    name = "providers"

    def ready(self) -> None:
        from providers import checks  # noqa: F401 - registers the checks
