"""Trying the configuration of a service against its upstream: in words, and without granting anything."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ValidationError

from providers.contract import CheckResult, UpstreamUnavailable
from providers.registry import strategies
from tenants.models import Service
from tenants.services.settings import clean_settings
from tenants.tenant_snapshot import key_ring


def check_service(service: Service) -> Iterator[CheckResult]:
    """Yield what is found, as it is found. The service may be disabled. Raises Django's database errors."""
    strategy = strategies().get(service.strategy)
    if strategy is None:
        yield CheckResult(passed=False, message=f"The provider {service.strategy} is not installed here.")
        return
    try:
        _, settings = clean_settings(strategy, service.settings_with_secrets())
    except ValidationError as problem:
        for message in problem.messages:
            yield CheckResult(passed=False, message=f"Setting {message}")
        return
    yield CheckResult(passed=True, message="The settings are complete, and each is of its form.")
    if not (service.enabled and service.tenant.enabled):
        # No fault: it is tried before it is enabled.
        yield CheckResult(passed=None, message="It is disabled, or its tenant is: nobody can use it yet.")
    try:
        yield from strategy.check(settings, key_ring(service.tenant_id))
    except UpstreamUnavailable as outage:
        yield CheckResult(passed=False, message=f"The upstream cannot be used: {outage}.")
