"""Metrics that the database stores: every server returns the same values."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family

from tenants.models import DocumentHealth

MAX_DOCUMENTS = 1000
"""Upstream documents with metrics: the number of time series of each metric."""


def read_families() -> list[Family]:
    """Raises Django's database errors."""
    return [*_document_families()]


def _document_families() -> Iterator[Family]:
    rows = DocumentHealth.unscoped.order_by("tenant_id", "address")[:MAX_DOCUMENTS]
    label_names = ["tenant", "document"]
    good = GaugeMetricFamily(
        "ags_document_good",
        "1 if the latest fetch of an upstream document succeeded, otherwise 0.",
        labels=label_names,
    )
    fetched = GaugeMetricFamily(
        "ags_document_fetched_timestamp_seconds",
        "Unix time of the last successful fetch of an upstream document, 0 if there was none.",
        labels=label_names,
    )
    health_by_labels: dict[tuple[str, str], tuple[int, float]] = {}
    for row in rows:
        # A query may contain credentials. Of the documents that differ only in it, the worst is reported.
        labels = row.tenant_id, row.address.partition("?")[0]
        health = 0 if row.trouble else 1, row.good_at.timestamp() if row.good_at else 0.0
        health_by_labels[labels] = min(health_by_labels.get(labels, health), health)
    for labels, (is_good, fetched_at) in health_by_labels.items():
        good.add_metric(labels, is_good)
        fetched.add_metric(labels, fetched_at)
    yield good
    yield fetched
