"""System checks: a provider that violates the contract stops start-up."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from providers.contract import Endpoint, Parameter, SecretField, Strategy
from providers.registry import provider_configs
from providers.version_1 import upgrade_warning

SLUG = re.compile(r"[a-z][a-z0-9_]{0,62}")


@register("providers")
def check_providers(**kwargs: Any) -> list[CheckMessage]:
    return list(_check_providers())


def _check_providers() -> Iterator[CheckMessage]:
    configs = provider_configs()
    installed = {config.name for config in configs}
    installed |= {f"{type(config).__module__}.{type(config).__qualname__}" for config in configs}
    for path in settings.AGS_PROVIDERS:
        if path not in installed:
            yield Error(
                f"{path} is listed in AGS_PROVIDERS but is not a provider.",
                hint="Its apps.py must define a ProviderConfig with `default = True`.",
                id="providers.E001",
            )
    for config in configs:
        for module, hint in config.missing_modules.items():
            message = f"{config.name} lacks the module {module}, so its services are not offered."
            yield Warning(message, hint=hint, id="providers.W001")
        if config.contract == 1:
            yield upgrade_warning(config)
    usable = [(config.name, config.instance) for config in configs if config.instance is not None]
    for slug, times in Counter(strategy.slug for _, strategy in usable).items():
        if times > 1:
            yield Error(f"{times} providers have the slug {slug!r}.", id="providers.E002")
    for name, strategy in usable:
        for problem, check_id in _problems(strategy):
            yield Error(f"{name}: {problem}", id=check_id)


def _problems(strategy: Strategy) -> Iterable[tuple[str, str]]:
    if not SLUG.fullmatch(strategy.slug):
        problem = f"slug {strategy.slug!r} must be 1 to 63 lower-case letters, digits and _, a letter first"
        yield problem, "providers.E003"
    if not strategy.endpoints:
        yield "declares no endpoint", "providers.E004"
    if Endpoint.SUBSEQUENT_SIGNON in strategy.endpoints and Endpoint.SIGNON not in strategy.endpoints:
        yield "declares SUBSEQUENT_SIGNON without SIGNON", "providers.E004"
    schema = strategy.parameter_schema
    fields: Iterable[object] = schema.fields.values()
    if not schema.fields or not all(isinstance(field, Parameter) for field in fields):
        problem = "Parameters must be a serializer with at least one field, all of them Parameter"
        yield problem, "providers.E005"
    elif len(schema.names) != len(schema.fields):
        yield "the names of two parameters differ only in case", "providers.E005"
    settings_form: type = strategy.Settings
    if not issubclass(settings_form, forms.Form):
        yield "Settings must be a Django form", "providers.E006"
    else:
        yield from _unknown_destinations(strategy.Settings.base_fields)
    if type(strategy).verify is Strategy.verify:
        yield "does not define verify()", "providers.E007"
    if strategy.debug_only and not settings.DEBUG:
        yield "is for development only: it needs DEBUG=on", "providers.E008"


def _unknown_destinations(fields: Mapping[str, forms.Field]) -> Iterable[tuple[str, str]]:
    for name, field in fields.items():
        destinations = field.destination_settings if isinstance(field, SecretField) else ()
        for unknown in sorted(set(destinations) - (fields.keys() - {name})):
            problem = f"destination_settings of {name} contains {unknown!r}, which is not another setting"
            yield problem, "providers.E009"
