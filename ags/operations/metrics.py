"""What AGS tells a Prometheus of itself. All of it comes from the database, so any process can be asked."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from tenants.models import DocumentHealth

__all__ = ["CONTENT_TYPE", "text"]

DOCUMENTS_TOLD = 1000
"""Documents that are told one by one: as many time series are made of each of the two below."""


def text() -> bytes:
    """Return all of it in the text format. Raises Django's database errors."""
    registry = CollectorRegistry()
    registry.register(_Documents())
    return generate_latest(registry)


class _Documents(Collector):
    """How fetching the documents of upstreams, such as key sets, goes."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the health of the documents."""
        rows = DocumentHealth.unscoped.order_by("tenant_id", "address")[:DOCUMENTS_TOLD]
        labels = ["tenant", "document"]
        good = GaugeMetricFamily(
            "ags_document_good",
            "Whether the latest fetch of a document of an upstream was good.",
            labels=labels,
        )
        fetched = GaugeMetricFamily(
            "ags_document_fetched_timestamp_seconds",
            "When a document of an upstream was last fetched, in seconds since the epoch; 0: never.",
            labels=labels,
        )
        told: dict[tuple[str, str], tuple[int, float]] = {}
        for row in rows:
            # A query may hold what lets AGS in. Of those that differ in nothing else, the worse is told.
            of = row.tenant_id, row.address.partition("?")[0]
            health = 0 if row.trouble else 1, row.good_at.timestamp() if row.good_at else 0.0
            told[of] = min(told.get(of, health), health)
        for of, (is_good, fetched_at) in told.items():
            good.add_metric(of, is_good)
            fetched.add_metric(of, fetched_at)
        yield good
        yield fetched
