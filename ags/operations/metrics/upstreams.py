"""Metrics of calls to upstreams."""

from collections.abc import Mapping

from ags.operations.metrics.values import OTHER, Labels, Values
from providers.upstream.bulkhead import Bulkhead, background, foreground
from providers.upstream.http import count_connections

__all__ = ["count_connections", "read_calls", "read_seconds", "read_taken"]

MAX_UPSTREAMS = 200
"""Upstreams with a label of their own: those that the process called first."""

BULKHEADS: Mapping[str, Bulkhead] = {"foreground": foreground, "background": background}

_labelled: set[str] = set()


def read_calls() -> Values:
    """By upstream and outcome."""
    return _sum(0)


def read_seconds() -> Values:
    """By upstream."""
    return _sum(1)


def read_taken() -> Values:
    """By bulkhead."""
    return {(name,): bulkhead.taken for name, bulkhead in BULKHEADS.items()}


def _sum(index: int) -> Values:
    total: Values = {}
    for bulkhead in BULKHEADS.values():
        for labels, value in bulkhead.read_calls()[index].items():
            labelled = _label(labels)
            total[labelled] = total.get(labelled, 0) + value
    return total


def _label(labels: Labels) -> Labels:
    upstream, *rest = labels
    if upstream not in _labelled:
        if len(_labelled) >= MAX_UPSTREAMS:
            return OTHER, *rest
        _labelled.add(upstream)
    return labels
