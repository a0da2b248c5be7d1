"""Erasing the personal data of one account, in small batches.

Rows that must stay lose what identifies the person: session tokens guard a `jti` against replays, and events
are the audit trail. A concurrent sign-on of the account is refused, or erased, or creates a new account.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.db import connection, transaction
from django.db.models import Case, F, Max, Min, Q, QuerySet, TextField, When
from django.db.models.functions import Cast, Now

from ags.database.clock import get_database_time
from ags.operations.account_data import find_choices, staff_log
from ags.operations.id_redaction import redact_details, redact_log
from ags.operations.purge import BATCH_SIZE, MAX_PAUSE, PAUSE_FACTOR
from ags.sessions.models import (
    Account,
    AccountChoice,
    AccountStatus,
    Device,
    Event,
    SecurityEvent,
    SessionToken,
)
from ags.sessions.services.staff_events import COMMAND

REASON = "account_erased"

SEARCHED_EVENTS = 10_000
"""Primary keys of events whose details one statement searches."""


def erase_account(tenant_id: str, account_id: str) -> Iterator[tuple[str, int]]:
    """Erase the data. After each batch, yield the kind of rows and how many were erased.

    Can be repeated, also after a crash. The last batch of each kind, the account and the event of the erasure
    are one transaction, so a crash before it leaves something to erase.
    """
    target = _Target(tenant_id, account_id, get_database_time())
    is_anything_erased = False
    for erased in _erase_in_details(target):
        is_anything_erased = True
        yield erased
    while True:
        # Sign-ons are refused until the end, so that there is an end.
        target.rows(Account).update(status=AccountStatus.CANCELLED)
        for kind in _KINDS:
            for erased in _erase_all_but_a_batch(target, kind):
                is_anything_erased = True
                yield erased
        try:
            with transaction.atomic():
                rest = _erase_rest(target)
                if is_anything_erased or any(number for _, number in rest):
                    Event.unscoped.create(
                        tenant_id=tenant_id, kind=Event.Kind.STAFF_ACTION, actor=COMMAND, reason=REASON
                    )
        except _Retry:
            continue
        yield from rest
        return


class _Retry(Exception):
    """A concurrent sign-on has stored more rows."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What is issued after `started_at` is erased only if it was used: the erasure must not chase it."""

    tenant_id: str
    account_id: str
    started_at: datetime

    def rows(self, model: Any) -> QuerySet[Any]:
        """Return the rows with this account ID."""
        rows: QuerySet[Any] = model.objects.for_tenant(self.tenant_id)
        return rows.filter(account_id=self.account_id)

    def devices(self) -> QuerySet[Device]:
        return Device.objects.for_tenant(self.tenant_id).filter(
            account__tenant=self.tenant_id, account__account_id=self.account_id
        )

    def events_of_devices(self, client_ids: Collection[str]) -> QuerySet[Event]:
        events = Event.objects.for_tenant(self.tenant_id).exclude(
            client_id=""
        )  # as the condition of the index
        return events.filter(client_id__in=client_ids)


@dataclass(frozen=True, slots=True)
class _Kind:
    """`find` returns the primary keys of that many rows; `erase` erases rows and returns their number."""

    name: str
    find: Callable[[_Target, int], list[int]]
    erase: Callable[[_Target, list[int]], int]
    find_client_ids: Callable[[list[int]], list[str]] = lambda pks: []


def _erase_all_but_a_batch(target: _Target, kind: _Kind) -> Iterator[tuple[str, int]]:
    while True:
        pks = kind.find(target, BATCH_SIZE + 1)
        client_ids = kind.find_client_ids(pks)
        while events := list(target.events_of_devices(client_ids).values_list("pk", flat=True)[:BATCH_SIZE]):
            yield "events", _run_batch(target, _erase_events, events)
        if len(pks) <= BATCH_SIZE:
            return
        yield kind.name, _run_batch(target, kind.erase, pks[:BATCH_SIZE])


def _run_batch(target: _Target, erase: Callable[[_Target, list[int]], int], pks: list[int]) -> int:
    started_at = time.monotonic()
    with transaction.atomic():
        number = erase(target, pks)
    time.sleep(min(PAUSE_FACTOR * (time.monotonic() - started_at), MAX_PAUSE))
    return number


def _erase_rest(target: _Target) -> list[tuple[str, int]]:
    """Erase a batch of each kind, and the account. Raises _Retry if that is not all.

    Locks rows in the order of sign-ons, so that both cannot deadlock: what is redeemed, account, devices.
    """
    erased = [(kind.name, _erase_last_batch(target, kind)) for kind in _REDEEMED]
    account = target.rows(Account).select_for_update().first()
    erased += [(kind.name, _erase_last_batch(target, kind)) for kind in _OTHERS]
    # Sign-ons of the account now wait for it, or find no device. One that has just ended may have left rows.
    is_signed_on = target.rows(SessionToken).filter(redeemed_at__isnull=False).exists()
    if is_signed_on or any(choice.used_at for choice in find_choices(target.tenant_id, target.account_id)):
        raise _Retry
    if account is not None:
        redact_log(staff_log(account, []), [target.account_id])
        account.delete()
        erased.append(("accounts", 1))
    return erased


def _erase_last_batch(target: _Target, kind: _Kind) -> int:
    pks = kind.find(target, BATCH_SIZE + 1)
    if len(pks) > BATCH_SIZE or target.events_of_devices(kind.find_client_ids(pks)).exists():
        raise _Retry
    return kind.erase(target, pks) if pks else 0


def _find_session_tokens(target: _Target, limit: int) -> list[int]:
    is_erased = Q(created_at__lte=target.started_at) | Q(redeemed_at__isnull=False)
    rows = target.rows(SessionToken).filter(is_erased).order_by("created_at", "pk")
    return list(rows.values_list("pk", flat=True)[:limit])


def _find_client_ids(pks: list[int]) -> list[str]:
    rows = SessionToken.unscoped.filter(pk__in=pks, client_id__isnull=False)
    return list(rows.values_list("client_id", flat=True).distinct())


def _erase_session_tokens(target: _Target, pks: list[int]) -> int:
    """Keep the rows, and revoke those that can be redeemed: they are of no account now."""
    # Locked in the order of the ID, as a redemption does.
    rows = target.rows(SessionToken).filter(pk__in=pks).order_by("pk").select_for_update()
    locked = dict(rows.values_list("pk", "client_id"))
    client_ids = [client_id for client_id in locked.values() if client_id]
    redact_log(staff_log(None, client_ids), [target.account_id, *client_ids])  # devices that have been purged
    return SessionToken.unscoped.filter(pk__in=locked).update(
        account_id="",
        client_address=None,
        redemption_address=None,
        client_id=None,
        revoked_at=Case(When(redeemed_at=None, revoked_at=None, then=Now()), default=F("revoked_at")),
    )


def _find_choices(target: _Target, limit: int) -> list[int]:
    choices = find_choices(target.tenant_id, target.account_id)
    pks = (each.pk for each in choices if each.created_at <= target.started_at or each.used_at)
    return list(islice(pks, limit))


def _erase_choices(target: _Target, pks: list[int]) -> int:
    rows = AccountChoice.objects.for_tenant(target.tenant_id).filter(pk__in=pks)
    locked = list(rows.order_by("pk").select_for_update().values_list("pk", flat=True))
    return rows.filter(pk__in=locked).delete()[0]


def _find_devices(target: _Target, limit: int) -> list[int]:
    return list(target.devices().order_by("client_id").values_list("pk", flat=True)[:limit])


def _find_client_ids_of_devices(pks: list[int]) -> list[str]:
    return list(Device.unscoped.filter(pk__in=pks).values_list("client_id", flat=True))


def _erase_devices(target: _Target, pks: list[int]) -> int:
    # Locked in the order of the client ID, as a sign-on does.
    rows = Device.objects.for_tenant(target.tenant_id).filter(pk__in=pks).order_by("client_id")
    locked = dict(rows.select_for_update().values_list("pk", "client_id"))
    client_ids = list(locked.values())
    redact_log(staff_log(None, client_ids), [target.account_id, *client_ids])
    return Device.unscoped.filter(pk__in=locked).delete()[0]


def _find_security_events(target: _Target, limit: int) -> list[int]:
    rows = target.rows(SecurityEvent).order_by("latest_at", "pk")
    return list(rows.values_list("pk", flat=True)[:limit])


def _erase_security_events(target: _Target, pks: list[int]) -> int:
    return target.rows(SecurityEvent).filter(pk__in=pks).update(account_id="")


def _find_events(target: _Target, limit: int) -> list[int]:
    rows = target.rows(Event).order_by("created_at", "pk")
    return list(rows.values_list("pk", flat=True)[:limit])


def _find_client_ids_of_events(pks: list[int]) -> list[str]:
    """Return those of devices of the account, and not of others on which it was refused."""
    rows = Event.unscoped.filter(pk__in=pks, kind__in=[Event.Kind.SIGNED_ON, Event.Kind.SIGN_ON_ENDED])
    return list(rows.exclude(client_id="").values_list("client_id", flat=True).distinct())


def _erase_events(target: _Target, pks: list[int]) -> int:
    client_ids = _find_client_ids_of_events(pks)
    redact_log(staff_log(None, client_ids), [target.account_id, *client_ids])  # devices that have been purged
    rows = Event.objects.for_tenant(target.tenant_id).filter(pk__in=pks)
    redact_details(rows, lambda event: [target.account_id, event.client_id])
    # Another account may have been refused on the device. Its event loses only the device.
    rows.filter(account_id__in=["", target.account_id]).update(account_id="", client_address=None)
    return rows.update(client_id="")


_REDEEMED = (
    _Kind("session tokens", _find_session_tokens, _erase_session_tokens, _find_client_ids),
    _Kind("account choices", _find_choices, _erase_choices),
)
_OTHERS = (
    _Kind("devices", _find_devices, _erase_devices, _find_client_ids_of_devices),
    _Kind("security events", _find_security_events, _erase_security_events),
    _Kind("events", _find_events, _erase_events, _find_client_ids_of_events),
)
_KINDS = (*_REDEEMED, *_OTHERS)


def _erase_in_details(target: _Target) -> Iterator[tuple[str, int]]:
    """Erase the account ID in the details of events that have no account, such as those of configurations."""
    bounds = Event.unscoped.aggregate(first=Min("pk"), last=Max("pk"))
    # SQLite has the text as Python writes it; PostgreSQL escapes no letters.
    text = json.dumps(target.account_id, ensure_ascii=connection.vendor == "sqlite")[1:-1]
    for first in range(bounds["first"] or 0, (bounds["last"] or -1) + 1, SEARCHED_EVENTS):
        events = Event.objects.for_tenant(target.tenant_id).filter(account_id="")
        found = events.filter(pk__gte=first, pk__lt=first + SEARCHED_EVENTS).annotate(
            text=Cast("details", TextField())
        )
        pks = list(found.filter(text__contains=text).order_by("pk").values_list("pk", flat=True))
        for start in range(0, len(pks), BATCH_SIZE):
            with transaction.atomic():
                rows = events.filter(pk__in=pks[start : start + BATCH_SIZE])
                changed = redact_details(rows, lambda _: [target.account_id])
            if changed:
                yield "events", changed
