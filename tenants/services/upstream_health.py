"""Records the outcome of upstream document fetches, and reports it to staff."""

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
from tenants.times import format_utc

RETENTION = timedelta(days=7)  # of the health of a document that is no longer fetched


def record_fetches(documents: Iterable[Document[Any]]) -> None:
    """Store the outcome of the last fetch of each document. Raises Django's database errors."""
    rows: dict[str, dict[tuple[str, str], DocumentHealth]] = {"good_at": {}, "failed_at": {}}
    for document in documents:
        health, source = document.health, document.source
        column = "good_at" if health.failure is None else "failed_at"
        fetched_at = datetime.fromtimestamp(getattr(health, column) or 0, UTC)
        rows[column][source.tenant, source.url] = DocumentHealth(
            tenant_id=source.tenant, address=source.url, trouble=health.detail[:255], **{column: fetched_at}
        )
    for column, rows_by_document in rows.items():
        DocumentHealth.unscoped.bulk_create(
            # Sorted, so that all processes lock rows in the same order and cannot deadlock.
            [row for _, row in sorted(rows_by_document.items())],
            update_conflicts=True,
            unique_fields=["tenant", "address"],
            update_fields=[column, "trouble"],
        )


@dataclass(frozen=True, slots=True)
class DocumentStatus:
    name: str
    address: str
    message: str


def get_document_statuses(service: Service) -> list[DocumentStatus]:
    strategy = strategies().get(service.strategy)
    if strategy is None:
        return []
    try:
        _, settings = clean_settings(strategy, service.settings_with_secrets())
    except ValidationError:
        return []
    # An empty key ring: the URLs do not depend on the keys of the tenant, of which there may be many.
    addresses = strategy.document_urls(settings, KeyRing(service.tenant_id, {}))
    rows = DocumentHealth.objects.for_tenant(service.tenant_id).filter(address__in=addresses.values())
    health = {row.address: row for row in rows}
    return [
        DocumentStatus(name, address, _format_health(health.get(address)))
        for name, address in addresses.items()
    ]


def _format_health(row: DocumentHealth | None) -> str:
    if row is None:
        return "Not fetched yet: no request has needed it."
    fetched = f"Last fetched at {format_utc(row.good_at)}." if row.good_at else "Never fetched."
    if row.trouble:
        failed = format_utc(row.failed_at) if row.failed_at else "an unknown time"
        return f"The latest attempt, at {failed}, failed: {row.trouble}. {fetched}"
    return fetched


def stale_documents() -> Any:
    before = timezone.now() - RETENTION
    return DocumentHealth.unscoped.exclude(good_at__gt=before).exclude(failed_at__gt=before)
