"""How fetching the documents of upstreams goes: recording it, and saying it to staff."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone

from providers.contract import KeyRing
from providers.registry import strategies
from providers.upstream import Document
from tenants.models import DocumentHealth, Service
from tenants.services.settings import clean_settings

KEPT = timedelta(days=7)
"""How long the health of a document that nobody fetches any more is told."""


def record_fetches(documents: Iterable[Document[Any]]) -> None:
    """Store the outcome of the last fetch of each document. Raises Django's database errors."""
    rows: dict[str, dict[tuple[str, str], DocumentHealth]] = {"good_at": {}, "failed_at": {}}
    for document in documents:
        health, source = document.health, document.source
        column = "good_at" if health.failure is None else "failed_at"
        moment = datetime.fromtimestamp(getattr(health, column) or 0, UTC)
        row = DocumentHealth(
            tenant_id=source.tenant, address=source.url, trouble=health.detail[:255], **{column: moment}
        )
        rows[column][source.tenant, source.url] = row
    for column, its_rows in rows.items():
        DocumentHealth.unscoped.bulk_create(
            [row for _, row in sorted(its_rows.items())],  # each process locks them in the same order
            update_conflicts=True,
            unique_fields=["tenant", "address"],
            update_fields=[column, "trouble"],
        )


@dataclass(frozen=True, slots=True)
class DocumentStatus:
    """The health of one document, as staff read it."""

    name: str
    address: str
    good: bool
    sentence: str


def document_statuses(service: Service) -> list[DocumentStatus]:
    """Return the health of the documents that this service relies on."""
    strategy = strategies().get(service.strategy)
    if strategy is None:
        return []
    try:
        _, settings = clean_settings(strategy, service.settings_with_secrets())
    except ValidationError:
        return []
    # Documents are of upstreams: they have nothing to do with the keys of the tenant, which may be many.
    addresses = strategy.document_urls(settings, KeyRing(service.tenant_id, {}))
    rows = DocumentHealth.objects.for_tenant(service.tenant_id).filter(address__in=addresses.values())
    known = {row.address: row for row in rows}
    return [_told(name, address, known.get(address)) for name, address in addresses.items()]


def _told(name: str, address: str, row: DocumentHealth | None) -> DocumentStatus:
    if row is None:
        return DocumentStatus(name, address, good=False, sentence="Not fetched yet: nobody has needed it.")
    fetched = f"Last fetched at {_moment(row.good_at)}." if row.good_at else "It was never fetched."
    if row.trouble:
        trouble = f"The latest attempt, at {_moment(row.failed_at)}, has failed: {row.trouble}."
        return DocumentStatus(name, address, good=False, sentence=f"{trouble} {fetched}")
    return DocumentStatus(name, address, good=True, sentence=fetched)


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def stale_documents() -> Any:
    """Return the rows of documents that nobody fetches any more."""
    before = timezone.now() - KEPT
    return DocumentHealth.unscoped.exclude(good_at__gt=before).exclude(failed_at__gt=before)
