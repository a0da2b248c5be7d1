"""The installed strategies."""

from collections.abc import Mapping
from functools import cache

from django.apps import apps

from providers.apps import ProviderConfig
from providers.contract import Strategy


@cache
def strategies() -> Mapping[str, Strategy]:
    instances = (config.instance for config in provider_configs())
    return {strategy.slug: strategy for strategy in instances if strategy is not None}


def provider_configs() -> list[ProviderConfig]:
    """Return the installed providers, in the order of `AGS_PROVIDERS`."""
    return [config for config in apps.get_app_configs() if isinstance(config, ProviderConfig)]
