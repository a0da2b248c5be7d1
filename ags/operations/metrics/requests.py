"""Counts of requests by their labels.

Callers choose the names of tenants and services, so only those that exist become labels.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from django.conf import settings

from ags.operations.metrics.values import BUCKETS, OTHER, Labels, Values, new_histogram
from tenants.snapshot import snapshot

MAX_SERIES = 5000
"""Time series of requests in a process. Any further requests count for the tenant and service `OTHER`."""

MAX_PENDING = 1000
"""Different requests that are counted before their labels are looked up."""


class Request(NamedTuple):
    """`service`: as the caller sent it. `kid`: that of the key of the tenant that signed the token."""

    route: str | None
    tenant: str | None
    service: str | None
    outcome: str
    reason: str | None
    kid: str | None


_lock = threading.Lock()  # staff pages run in threads
_pending: defaultdict[Request, int] = defaultdict(int)
_requests: Values = {}
_tokens: Values = {}
_durations: defaultdict[str | None, list[float]] = defaultdict(new_histogram)


def count_request(request: Request, seconds: float | None) -> None:
    """`seconds`: its duration; None if it could not be parsed."""
    with _lock:
        _pending[request] += 1
        if seconds is not None:
            row = _durations[request.route]
            row[bisect_left(BUCKETS, seconds)] += 1
            row[-1] += seconds
        is_full = len(_pending) >= MAX_PENDING
    if is_full:
        _add_pending()


def read_requests() -> Mapping[Labels, int]:
    """By endpoint, tenant, service, outcome and reason."""
    _add_pending()
    return _requests


def read_tokens() -> Mapping[Labels, int]:
    """By tenant, kid and outcome: tokens that a key of a tenant has signed."""
    _add_pending()
    return _tokens


def read_durations() -> Mapping[Labels, list[float]]:
    """By endpoint."""
    with _lock:
        return {(route or "",): list(row) for route, row in _durations.items()}


def _add_pending() -> None:
    tenants = snapshot.first_tenants(settings.AGS_METRICS_TENANTS)
    with _lock:
        for request, number in _pending.items():
            tenant, service = _labels(request, tenants)
            endpoint, outcome, reason = request.route or "", request.outcome, request.reason or ""
            _add(_requests, number, (endpoint, tenant, service, outcome, reason), other=(1, 2))
            if request.kid is not None:
                _add(
                    _tokens,
                    number,
                    (tenant, OTHER if tenant == OTHER else request.kid, outcome),
                    other=(0, 1),
                )
        _pending.clear()


def _labels(request: Request, tenants: frozenset[str]) -> tuple[str, str]:
    """Return the tenant and the service of a request."""
    if request.tenant is None:
        return "", ""
    if request.tenant not in tenants:
        return OTHER, OTHER
    if request.service is None:
        return request.tenant, ""
    is_known = snapshot.has_service(request.tenant, request.service)
    return request.tenant, request.service if is_known else OTHER


def _add(values: Values, number: int, labels: Labels, *, other: tuple[int, int]) -> None:
    """Add the number to that of the labels. If there are too many, the labels `other` become `OTHER`."""
    if labels not in values and len(values) >= MAX_SERIES:
        labels = tuple(OTHER if index in other else label for index, label in enumerate(labels))
    values[labels] = values.get(labels, 0) + number
