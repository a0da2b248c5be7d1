"""Prometheus metrics. Every process of a server returns the same values."""

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector, CollectorRegistry

from ags.limits import LIMITS
from ags.sessions.services.refusals import omitted_refusals
from tenants.models import DocumentHealth

__all__ = ["CONTENT_TYPE", "render_metrics"]

MAX_DOCUMENTS = 1000
"""Upstream documents with metrics: the number of time series of each metric."""


def render_metrics() -> bytes:
    registry = CollectorRegistry()
    registry.register(_DocumentCollector())
    registry.register(_LimitCollector())
    return generate_latest(registry)


class _LimitCollector(Collector):
    """Counts of this server: a limit refuses requests without the database."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        requests = CounterMetricFamily(
            "ags_limited_requests",
            "Requests that a limit has refused since the server started.",
            labels=["limit"],
        )
        for limit in LIMITS:
            requests.add_metric([limit.name], limit.refusals.total())
        yield requests
        yield CounterMetricFamily(
            "ags_omitted_refusals",
            "Refused requests since the server started that are counted, and missing from the audit trail.",
            value=omitted_refusals.total(),
        )


class _DocumentCollector(Collector):
    """Read from the database, so that every server returns the same values."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
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
