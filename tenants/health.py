"""Keeping and telling how fetching the documents of upstreams goes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection
from django.db.utils import Error
from django.utils import timezone

from providers.contract import KeyRing
from providers.registry import strategies
from providers.upstream import Document
from tenants.models import DocumentHealth, Service
from tenants.settings_form import validated

KEPT = timedelta(days=7)
"""How long the health of a document that nobody fetches any more is told."""

log = logging.getLogger(__name__)


def keep(document: Document[Any], **_: Any) -> None:
    """Store the outcome of a fetch, in the thread that fetched. A database that is away is no matter."""
    health, source = document.health, document.source
    failed = health.outage is not None
    moment = datetime.fromtimestamp((health.failed_at if failed else health.good_at) or 0, UTC)
    row = DocumentHealth(
        tenant_id=source.tenant,
        address=source.url,
        trouble=health.detail[:255],
        **{"failed_at" if failed else "good_at": moment},
    )
    # A thread that had no connection has no use for one after this.
    keeps_connection = connection.connection is not None
    try:
        DocumentHealth.unscoped.bulk_create(
            [row],
            update_conflicts=True,
            unique_fields=["tenant", "address"],
            update_fields=["failed_at" if failed else "good_at", "trouble"],
        )
    except Error as error:
        log.warning("health of a document not stored: %s", type(error).__name__)
    finally:
        if not keeps_connection:
            connection.close()


@dataclass(frozen=True, slots=True)
class Told:
    """The health of one document, as staff read it."""

    name: str
    address: str
    good: bool
    sentence: str


def of_service(service: Service) -> list[Told]:
    """Return the health of the documents that this service relies on."""
    strategy = strategies().get(service.strategy)
    if strategy is None:
        return []
    try:
        _, settings = validated(strategy, service.clear_settings())
    except ValidationError:
        return []
    # Documents are of upstreams: they have nothing to do with the keys of the tenant, which may be many.
    addresses = strategy.documents(settings, KeyRing(service.tenant_id, {}))
    rows = DocumentHealth.objects.for_tenant(service.tenant_id).filter(address__in=addresses.values())
    known = {row.address: row for row in rows}
    return [_told(name, address, known.get(address)) for name, address in addresses.items()]


def _told(name: str, address: str, row: DocumentHealth | None) -> Told:
    if row is None:
        return Told(name, address, good=False, sentence="Not fetched yet: nobody has needed it.")
    fetched = f"Last fetched at {_moment(row.good_at)}." if row.good_at else "It was never fetched."
    if row.trouble:
        trouble = f"The latest attempt, at {_moment(row.failed_at)}, has failed: {row.trouble}."
        return Told(name, address, good=False, sentence=f"{trouble} {fetched}")
    return Told(name, address, good=True, sentence=fetched)


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def forgotten() -> Any:
    """Return the rows of documents that nobody fetches any more."""
    before = timezone.now() - KEPT
    return DocumentHealth.unscoped.exclude(good_at__gt=before).exclude(failed_at__gt=before)
