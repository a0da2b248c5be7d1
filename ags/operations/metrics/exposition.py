"""`render_metrics`: everything in the text format of Prometheus."""

import asyncio
import logging
import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate

import django
from django.db import Error
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector, CollectorRegistry

from ags import __version__
from ags.database import run_with_orm
from ags.limits import LIMITS
from ags.operations.metrics import stored
from ags.operations.metrics.processes import read_server
from ags.operations.metrics.table import METRICS
from ags.operations.metrics.values import BUCKETS, Kind, Metric, Values
from ags.sessions.services.refusals import omitted_refusals

__all__ = ["CONTENT_TYPE", "render_metrics"]

log = logging.getLogger(__name__)


async def render_metrics() -> bytes:
    """Without the metrics that the database stores if it is unavailable."""
    families = [*_build_info(), *_limit_families()]
    values = read_server()
    try:
        families += await run_with_orm(stored.read_families)
    except Error as error:
        log.warning("metrics of the database not read: %s", type(error).__name__)
    # In a thread: thousands of time series take a tenth of a second.
    return await asyncio.to_thread(_format, families, values)


def _format(families: list[Family], values: Mapping[str, Values]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families([*families, *_server_families(values)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _build_info() -> Iterator[Family]:
    versions = {"version": __version__, "python": platform.python_version(), "django": django.__version__}
    yield InfoMetricFamily("ags_build", "The versions of AGS, Python and Django.", versions)


def _server_families(values: Mapping[str, Values]) -> Iterator[Family]:
    for metric in METRICS:
        yield _family(metric, values.get(metric.name, {}))


def _family(metric: Metric, values: Values) -> Family:
    match metric.kind:
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.documentation, labels=metric.labels)
            bounds = [*map(str, BUCKETS), "+Inf"]
            for labels, row in sorted(values.items()):
                buckets = list(zip(bounds, accumulate(row[:-1]), strict=True))
                histogram.add_metric(labels, buckets, row[-1])
            return histogram
        case Kind.COUNTER:
            family: CounterMetricFamily | GaugeMetricFamily = CounterMetricFamily(
                metric.name, metric.documentation, labels=metric.labels
            )
        case _:
            family = GaugeMetricFamily(metric.name, metric.documentation, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _limit_families() -> Iterator[Family]:
    """Counts of this server: a limit refuses requests without the database."""
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
