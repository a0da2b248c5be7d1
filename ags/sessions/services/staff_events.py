"""Storing the actions of staff, and the changes of the configuration, in the audit trail."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Model
from simple_history.models import HistoricalRecords

from ags.sessions.models import Account, Device, Event, SessionToken
from tenants.models import Key, Service, SigningKey, Tenant

COMMAND = "a command"
"""The actor of a change that no page made. A user name contains no space."""

Values = Mapping[str, Any]
"""Can be serialized as JSON, and contain no secret."""


def record_staff_action(
    row: Model, reason: str, before: Values | None = None, after: Values | None = None
) -> None:
    """Store that staff did something to the row. Call it in the transaction of the change.

    `reason`: a short code of the action. `before` and `after`: the values that change, if any do.
    """
    _store(Event.Kind.STAFF_ACTION, row, reason, before, after)


def record_configuration_change(row: Model, reason: str, before: Values | None, after: Values | None) -> None:
    """Store a change of the configuration, with the same arguments as `record_staff_action`."""
    _store(Event.Kind.CONFIGURATION_CHANGED, row, reason, before, after)


def is_page() -> bool:
    """Return whether the code runs for a request of a staff page, and not for a command."""
    return _get_request() is not None


def _store(kind: Event.Kind, row: Model, reason: str, before: Values | None, after: Values | None) -> None:
    request = _get_request()
    entry = None if request is None else request.log_entry  # set by GatewayMiddleware
    details: dict[str, Any] = {"model": row._meta.model_name, "object": str(row)}
    if before is not None or after is not None:
        details |= {"before": before, "after": after}
    columns = _get_columns(row)
    if "account_id" in columns:
        details["object"] = str(row.pk)  # the account ID is in its column only, to be found and erased there
    Event.unscoped.create(
        kind=kind,
        correlation_id=entry.correlation_id if entry else "",
        client_address=entry.client_address if entry else None,
        actor=_get_username(request),
        reason=reason,
        details=details,
        **{"tenant_id": getattr(row, "tenant_id", None), **columns},
    )


def _get_columns(row: Any) -> dict[str, Any]:
    """Return the columns of an event that identify the row."""
    match row:
        case Tenant():
            return {"tenant_id": row.pk}
        case Service():
            return {"service": row.name}
        case Key() | SigningKey():
            return {"kid": row.kid}
        case Account():
            return {"account_id": row.account_id}
        case Device():
            return {"account_id": row.account.account_id, "client_id": row.client_id}
        case SessionToken():
            return {"account_id": row.account_id, "client_id": row.client_id or ""}
    return {}


def _get_request() -> Any:
    """Return the request of a staff page, or None. `HistoryRequestMiddleware` sets it."""
    return getattr(HistoricalRecords.context, "request", None)


def _get_username(request: Any) -> str:
    if request is None:
        return COMMAND
    return request.user.get_username() if request.user.is_authenticated else ""
