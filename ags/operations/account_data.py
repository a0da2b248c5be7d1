"""Everything that AGS stores about one account, as one JSON document."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q, QuerySet

from ags.operations.event_export import format_event, format_timestamp
from ags.sessions.audit_trail import AuditEvent, Criteria, read
from ags.sessions.models import Account, AccountChoice, Device, SessionToken

PAGE_SIZE = 1000


def export_account(tenant_id: str, account_id: str) -> Iterator[str]:
    """Yield the pieces of the document. Yield nothing if nothing is stored about the account."""
    account = Account.objects.for_tenant(tenant_id).filter(account_id=account_id).first()
    lists = {
        "devices": _devices(account),
        "session_tokens": _session_tokens(tenant_id, account_id),
        "account_choices": _account_choices(tenant_id, account_id),
        "events": _events(tenant_id, account_id, account),
        "staff_log": _staff_log(account),
    }
    known: dict[str, Any] = {"tenant": tenant_id, "account_id": account_id, "account": None}
    if account is not None:
        known["account"] = {
            "status": account.status,
            "created_at": account.created_at,
            "revoked_before": account.revoked_before,
        }
    is_empty = account is None
    start = _dump(known).removesuffix("}")
    for name, items in lists.items():
        start += f', "{name}": ['
        separator = ""
        for item in items:
            is_empty = False
            yield f"{start}{separator}\n{_dump(item)}"
            start, separator = "", ","
        start += "]"
    if not is_empty:
        yield f"{start}}}\n"


def find_choices(tenant_id: str, account_id: str) -> Iterator[AccountChoice]:
    """Yield the choices of several accounts, one of which is this one.

    SQLite cannot search in their JSON. The table is small, because choices are purged after ten minutes.
    """
    rows = AccountChoice.objects.for_tenant(tenant_id).order_by("pk")
    page = list(rows[:PAGE_SIZE])
    while page:
        yield from (choice for choice in page if account_id in choice.accounts)
        page = list(rows.filter(pk__gt=page[-1].pk)[:PAGE_SIZE])


def staff_log(account: Account | None, client_ids: Iterable[str]) -> QuerySet[LogEntry]:
    """Return the history of the pages of an account and of devices. Its texts may contain their IDs."""
    types = ContentType.objects.get_for_models(Account, Device)
    entries = Q(content_type=types[Device], object_repr__in=list(client_ids))
    if account is not None:
        entries |= Q(content_type=types[Account], object_id=str(account.pk))
    return LogEntry.objects.filter(entries).order_by("pk")


def _devices(account: Account | None) -> Iterator[dict[str, Any]]:
    rows = (
        Device.objects.for_tenant(account.tenant_id).filter(account=account)
        if account
        else Device.unscoped.none()
    )
    for device in rows.select_related("service").order_by("pk").iterator():
        yield {
            "client_id": device.client_id,
            "status": device.status,
            "information": device.information,
            "created_at": device.created_at,
            "service": device.service.name,
            "sign_on": device.sign_on,
            "correlation_id": device.correlation_id,
            "proven_at": device.proven_at,
            "signed_on_at": device.signed_on_at,
            "refreshed_at": [datetime.fromtimestamp(used, UTC) for _, used in device.used],
            "refresh_expires_at": device.refresh_expires_at,
            "fixed_expires_at": device.fixed_expires_at,
            "ended_at": device.ended_at,
            "end_reason": device.end_reason or None,
        }


def _session_tokens(tenant_id: str, account_id: str) -> Iterator[dict[str, Any]]:
    rows = SessionToken.objects.for_tenant(tenant_id).filter(account_id=account_id).select_related("service")
    for token in rows.order_by("created_at", "pk").iterator():
        yield {
            "session_token": token.pk,
            "service": token.service.name,
            "kid": token.kid,
            "jti": token.jti,
            "correlation_id": token.correlation_id,
            "client_address": token.client_address,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "revoked_at": token.revoked_at,
            "redeemed_at": token.redeemed_at,
            "redemption_correlation_id": token.redemption_correlation_id,
            "redemption_address": token.redemption_address,
            "client_id": token.client_id,
        }


def _account_choices(tenant_id: str, account_id: str) -> Iterator[dict[str, Any]]:
    for choice in find_choices(tenant_id, account_id):
        yield {
            "created_at": choice.created_at,
            "expires_at": choice.expires_at,
            "used_at": choice.used_at,
            "correlation_id": choice.correlation_id,
            "information": choice.information,
            "client_id": choice.client_id,
        }


def _events(tenant_id: str, account_id: str, account: Account | None) -> Iterator[Any]:
    yield from map(_event, read(tenant_id, Criteria(account_id=account_id)))
    if account is None:
        return
    client_ids = (
        Device.objects.for_tenant(tenant_id).filter(account=account).values_list("client_id", flat=True)
    )
    for client_id in client_ids.order_by("pk").iterator():
        for event in read(tenant_id, Criteria(client_id=client_id)):
            if not event.account_id:  # refused before the account was known
                yield _event(event)


def _event(event: AuditEvent) -> Any:
    return json.loads(format_event(event))


def _staff_log(account: Account | None) -> Iterator[dict[str, Any]]:
    """Without the names of staff, who are other persons."""
    if account is None:
        return
    client_ids = (
        Device.objects.for_tenant(account.tenant_id)
        .filter(account=account)
        .values_list("client_id", flat=True)
    )
    for entry in staff_log(account, client_ids).select_related("content_type"):
        yield {
            "time": entry.action_time,
            "page": entry.content_type.model if entry.content_type else None,
            "message": entry.get_change_message(),
        }


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        return format_timestamp(o) if isinstance(o, datetime) else super().default(o)


def _dump(value: Any) -> str:
    return json.dumps(value, cls=_Encoder)
