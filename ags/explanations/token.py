"""What a token would get now. It is verified; nothing is issued, stored or used up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone
from rest_framework.exceptions import ValidationError as ParameterError

from ags.explanations.explanation import Explanation, Request, explain_grant, explain_refusal
from ags.explanations.lookup import find_strategy
from ags.explanations.steps import GET_SESSION_TOKEN, SIGN_ON
from ags.sessions.models import Account, AccountStatus, SessionToken
from providers.contract import (
    Endpoint,
    FailureReason,
    Identity,
    Step,
    Strategy,
    UpstreamUnavailable,
    VerificationFailed,
    log_context,
)
from tenants.models import Service, Tenant
from tenants.services.settings import clean_settings
from tenants.tenant_snapshot import load_key_rings

NOT_CHECKED = "Limits and the rules for devices were not checked."


class NotAToken(ValueError):
    """The service cannot verify the token with these parameters. The message is a sentence for staff."""


@dataclass(slots=True)
class _LogContext:
    kid: str | None = None
    key_id: int | None = None
    token_age: float | None = None


@dataclass(eq=False)
class _Refused(Exception):
    reason: str
    facts: Mapping[str, Any]


def explain_token(tenant_id: str, service_name: str, token: str, others: Mapping[str, str]) -> Explanation:
    """`others`: further parameters by name. Raises `NotAToken`, and Django's database errors."""
    strategy = find_strategy(tenant_id, service_name)
    is_issued = strategy is None or Endpoint.GET_SESSION_TOKEN in strategy.endpoints
    route = GET_SESSION_TOKEN if is_issued else SIGN_ON
    request = Request("", timezone.now(), tenant_id, service_name, route)
    context = _LogContext()
    reset = log_context.set(context)
    try:
        since = _verify(request, strategy, token, others)
    except _Refused as refused:
        request = replace(request, kid=context.kid or "")
        return explain_refusal(request, refused.reason, refused.facts, strategy=strategy)
    finally:
        log_context.reset(reset)
    summary = f"AGS would {'issue a session token' if is_issued else 'sign on the device'} now."
    return explain_grant(
        replace(request, kid=context.kid or ""), summary, strategy=strategy, since=[*since, NOT_CHECKED]
    )


def _verify(request: Request, strategy: Strategy | None, token: str, others: Mapping[str, str]) -> list[str]:
    """Return sentences about what would follow. Raises `_Refused`."""
    if not Tenant.objects.filter(pk=request.tenant, enabled=True).exists():
        raise _Refused("tenant_not_available", {})
    service = Service.objects.for_tenant(request.tenant).filter(name=request.service, enabled=True).first()
    try:
        if service is None or strategy is None:
            raise _Refused("service_not_available", {})
        _, settings = clean_settings(strategy, service.settings_with_secrets())
        parameters = strategy.parameter_schema.validate(_build_parameters(strategy, token, others))
        identity = strategy.verify(parameters, settings, load_key_rings(request.tenant)[strategy.key_kind])
    except ValidationError:
        raise _Refused("service_not_available", {}) from None
    except ParameterError:
        raise _Refused("parameter_invalid", {}) from None
    except VerificationFailed as error:
        raise _Refused(error.reason.value, {"name": error.claim or "", **error.facts}) from None
    except UpstreamUnavailable as error:
        raise _Refused(error.failure.value, {"problem": str(error)}) from None
    if isinstance(identity, Identity):
        return _check_identity(identity, service, request.route)
    if request.route == GET_SESSION_TOKEN or Endpoint.SUBSEQUENT_SIGNON not in strategy.endpoints:
        raise _Refused(FailureReason.ACCOUNT_AMBIGUOUS.value, {})
    return ["The subscriber would choose one of several accounts first."]


def _build_parameters(strategy: Strategy, token: str, others: Mapping[str, str]) -> dict[str, str]:
    schema = strategy.parameter_schema
    names = ", ".join(schema.fields)
    if Step.FORM not in strategy.steps or not schema.required:
        raise NotAToken(f"The service verifies no token: its parameters are {names}.")
    parameters = {schema.required[0]: token}
    for name, value in others.items():
        declared = schema.names.get(name.lower())
        if declared is None or declared in parameters:
            raise NotAToken(f"The service has no further parameter with this name: it has {names}.")
        parameters[declared] = value
    if missing := [name for name in schema.required if name not in parameters]:
        raise NotAToken(f"The service also needs --parameter {missing[0]}=VALUE.")
    return parameters


def _check_identity(identity: Identity, service: Service, route: str) -> list[str]:
    """Check what the database decides. Raises `_Refused`."""
    accepted = SessionToken.objects.for_tenant(service.tenant_id)
    same_key = Q(key=identity.key_id) if identity.key_id is not None else Q(key=None, service=service)
    if identity.jti is not None and accepted.filter(same_key, jti=identity.jti).exists():
        raise _Refused(FailureReason.REPLAYED.value, {"name": "jti"})
    accounts = Account.objects.for_tenant(service.tenant_id).filter(account_id=identity.account_id)
    status = accounts.values_list("status", flat=True).first() or AccountStatus.ACTIVE
    if status == AccountStatus.ACTIVE:
        return []
    if route == SIGN_ON:
        raise _Refused(f"account_{status}", {})
    return [f"The account is {status}, so the session token could not be redeemed."]
