"""Metrics that the database stores: every server returns the same values."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family

from ags.operations.processes import read_propagation
from ags.operations.purge_counts import read_purge_status
from tenants.models import DocumentHealth

MAX_DOCUMENTS = 1000
"""Upstream documents with metrics: the number of time series of each metric."""


def read_families() -> list[Family]:
    """Raises Django's database errors."""
    return [*_document_families(), *_configuration_families(), *_purge_families()]


def _configuration_families() -> Iterator[Family]:
    propagation = read_propagation()
    yield GaugeMetricFamily(
        "ags_config_processes",
        "Processes of all servers that report the version of the configuration.",
        value=len(propagation.processes),
    )
    yield GaugeMetricFamily(
        "ags_config_processes_behind",
        "Those that do not serve the latest version yet.",
        value=len(propagation.behind),
    )


def _purge_families() -> Iterator[Family]:
    status = read_purge_status()
    succeeded_at = status.succeeded_at.timestamp() if status.succeeded_at else 0.0
    yield GaugeMetricFamily(
        "ags_purge_success_timestamp_seconds",
        "Unix time at which a server or a command has last purged without an error, 0 if none has.",
        value=succeeded_at,
    )
    yield GaugeMetricFamily(
        "ags_purge_overdue",
        "1 if a purge has been due for an hour, otherwise 0.",
        value=int(status.is_overdue),
    )
    purged = CounterMetricFamily("ags_purged_rows", "Expired rows that were deleted.", labels=["kind"])
    rows = GaugeMetricFamily(
        "ags_rows",
        "Rows that a purge can delete now (dead), and the others of their table (alive).",
        labels=["kind", "state"],
    )
    for kind, count in status.kinds.items():
        purged.add_metric([kind], count.purged)
        for state, number in (("dead", count.dead), ("alive", count.alive)):
            if number is not None:
                rows.add_metric([kind, state], number)
    yield purged
    yield rows


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
