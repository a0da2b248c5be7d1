"""The values of metrics by labels, and how those of several processes are combined."""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of histograms, in seconds."""

OTHER = "_other"
"""The label of everything without a label of its own. No tenant has this ID."""

Labels = tuple[str, ...]
Values = dict[Labels, Any]
"""Numbers; for histograms, lists: the number in each bucket, in `+Inf`, and the sum."""


class Kind(enum.Enum):
    """How the values of several processes are combined. Counters include processes that have ended."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    SUM = "sum"
    MIN = "min"
    MAX = "max"

    @property
    def is_cumulative(self) -> bool:
        return self in {Kind.COUNTER, Kind.HISTOGRAM}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a process. `read` returns its current values, in the event loop."""

    name: str
    documentation: str
    kind: Kind
    labels: Labels
    read: Callable[[], Mapping[Labels, Any]]


def observe(histograms: Values, labels: Labels, seconds: float) -> None:
    row = histograms.get(labels)
    if row is None:
        row = histograms[labels] = new_histogram()
    row[bisect_left(BUCKETS, seconds)] += 1
    row[-1] += seconds


def new_histogram() -> list[float]:
    return [0] * (len(BUCKETS) + 1) + [0.0]


def merge(kind: Kind, total: Values, values: Mapping[Labels, Any]) -> None:
    """Add the values of a process to those of others."""
    combine = _COMBINE[kind]
    for labels, value in values.items():
        total[labels] = combine(total[labels], value) if labels in total else value


def _add_rows(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


_COMBINE: Mapping[Kind, Callable[[Any, Any], Any]] = {
    Kind.COUNTER: lambda one, other: one + other,
    Kind.HISTOGRAM: _add_rows,
    Kind.SUM: lambda one, other: one + other,
    Kind.MIN: min,
    Kind.MAX: max,
}
