"""Checks the configuration of a service against its upstream, without issuing a token."""

from collections.abc import Iterator

from django.core.exceptions import ValidationError

from providers.contract import CheckResult, UpstreamUnavailable
from providers.registry import strategies
from tenants.models import Service
from tenants.services.settings import clean_settings
from tenants.tenant_snapshot import load_key_rings


def check_service(service: Service) -> Iterator[CheckResult]:
    """Yield each result as soon as it is known. The service may be disabled.

    Raises Django's database errors.
    """
    strategy = strategies().get(service.strategy)
    if strategy is None:
        yield CheckResult(passed=False, message=f"The provider {service.strategy} is not installed.")
        return
    try:
        _, settings = clean_settings(strategy, service.settings_with_secrets())
    except ValidationError as problem:
        for message in problem.messages:
            yield CheckResult(passed=False, message=f"Setting {message}")
        return
    yield CheckResult(passed=True, message="The settings are complete and valid.")
    if not (service.enabled and service.tenant.enabled):
        # Not a failure: staff check a service before they enable it.
        yield CheckResult(passed=None, message="The service or its tenant is disabled, so nobody can use it.")
    try:
        yield from strategy.check(settings, load_key_rings(service.tenant_id)[strategy.key_kind])
    except UpstreamUnavailable as outage:
        yield CheckResult(passed=False, message=f"The upstream cannot be used: {outage}.")
