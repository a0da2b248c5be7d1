"""The metrics of a process: a table of their names, labels and sources."""

from __future__ import annotations

import resource
from pathlib import Path

from ags.database import get_database
from ags.database.batching import batchers
from ags.database.clock import get_clock_difference, is_clock_suspect
from ags.database.threads import waiting_calls
from ags.operations.metrics import requests, upstreams
from ags.operations.metrics.values import Kind, Labels, Metric, Values, merge
from ags.server.load import load
from tenants.snapshot import snapshot

PAGE_SIZE = resource.getpagesize()


def _one(value: float) -> dict[Labels, float]:
    return {(): value}


def _read_batches() -> dict[Labels, int]:
    return _sum_batchers("batches")


def _read_batch_rows() -> dict[Labels, int]:
    return _sum_batchers("rows")


def _sum_batchers(attribute: str) -> dict[Labels, int]:
    totals: Values = {}
    for batcher in batchers:
        merge(Kind.SUM, totals, {(batcher.name,): getattr(batcher, attribute)})
    return totals


def _read_waiting() -> dict[Labels, int]:
    waiting: Values = {(queue,): number for queue, number in waiting_calls().items()}
    waiting["batches",] = sum(batcher.waiting for batcher in batchers)
    return waiting


def _read_memory() -> dict[Labels, float]:
    try:
        return _one(int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE_SIZE)
    except OSError:  # not Linux
        return {}


def _read_open_files() -> dict[Labels, float]:
    try:
        return _one(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    except OSError:
        return {}


def _read_clock() -> dict[Labels, float]:
    difference = get_clock_difference()
    return {} if difference is None else _one(abs(difference))


def _read_config_version() -> dict[Labels, float]:
    return _one(snapshot.configuration_version) if snapshot.configuration_version else {}


def _read_cpu() -> dict[Labels, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return _one(usage.ru_utime + usage.ru_stime)


C, H, SUM, MAX, MIN = Kind.COUNTER, Kind.HISTOGRAM, Kind.SUM, Kind.MAX, Kind.MIN

METRICS = (
    Metric(
        "ags_requests",
        "Requests by endpoint, tenant, service, outcome and the reason of a refusal.",
        C,
        ("endpoint", "tenant", "service", "outcome", "reason"),
        requests.read_requests,
    ),
    Metric(
        "ags_request_duration_seconds",
        "The time from the parsed request to its response, by endpoint.",
        H,
        ("endpoint",),
        requests.read_durations,
    ),
    Metric(
        "ags_key_tokens",
        "Tokens that a key of a tenant has signed, by the outcome of their requests.",
        C,
        ("tenant", "kid", "outcome"),
        requests.read_tokens,
    ),
    Metric(
        "ags_requests_in_flight", "Requests without a response yet.", SUM, (), lambda: _one(load.requests)
    ),
    Metric(
        "ags_waiting",
        "Calls that wait for a thread, a database connection or the statement of a batch.",
        SUM,
        ("queue",),
        _read_waiting,
    ),
    Metric("ags_connections", "Open connections of clients.", SUM, (), lambda: _one(len(load.connections))),
    Metric(
        "ags_dropped_connections",
        "Connections that were closed at a limit of a process.",
        C,
        (),
        lambda: _one(load.dropped),
    ),
    Metric(
        "ags_upstream_calls",
        "Calls of upstreams, by outcome.",
        C,
        ("upstream", "outcome"),
        upstreams.read_calls,
    ),
    Metric(
        "ags_upstream_call_seconds",
        "The time that the calls of an upstream took.",
        C,
        ("upstream",),
        upstreams.read_seconds,
    ),
    Metric(
        "ags_upstream_slots_taken",
        "Calls of upstreams that have not ended: of requests (foreground) and of documents.",
        SUM,
        ("bulkhead",),
        upstreams.read_taken,
    ),
    Metric(
        "ags_upstream_connections",
        "Connections to upstreams, with idle ones.",
        SUM,
        (),
        lambda: _one(upstreams.count_connections()),
    ),
    Metric(
        "ags_batches", "Statements that were executed for a batch of requests.", C, ("batch",), _read_batches
    ),
    Metric("ags_batch_rows", "Requests in these batches.", C, ("batch",), _read_batch_rows),
    Metric(
        "ags_database_connections",
        "Open connections to PostgreSQL.",
        SUM,
        (),
        lambda: _one(get_database().connections),
    ),
    Metric(
        "ags_database_available",
        "1 if the database is available to all processes, otherwise 0.",
        MIN,
        (),
        lambda: _one(int(get_database().is_available)),
    ),
    Metric(
        "ags_database_outages",
        "Outages of the database, counted by each process.",
        C,
        (),
        lambda: _one(get_database().outages[0]),
    ),
    Metric(
        "ags_database_outage_seconds",
        "The duration of these outages.",
        C,
        (),
        lambda: _one(get_database().outages[1]),
    ),
    Metric(
        "ags_clock_difference_seconds",
        "By how much the clock of the machine is ahead of that of the database, or behind it.",
        MAX,
        (),
        _read_clock,
    ),
    Metric(
        "ags_clock_differs",
        "1 if that is more than half of AGS_CLOCK_TOLERANCE, otherwise 0.",
        MAX,
        (),
        lambda: _one(int(is_clock_suspect())),
    ),
    Metric(
        "ags_config_version",
        "The oldest version of the configuration that a process of the server serves.",
        MIN,
        (),
        _read_config_version,
    ),
    Metric("ags_processes", "Processes of the server.", SUM, (), lambda: _one(1)),
    Metric("ags_process_cpu_seconds", "CPU time of the processes.", C, (), _read_cpu),
    Metric("ags_process_resident_memory_bytes", "Memory of the processes.", SUM, (), _read_memory),
    Metric("ags_process_open_fds", "Open files of the process with the most.", MAX, (), _read_open_files),
    Metric(
        "ags_event_loop_delay_seconds",
        "By how much the last write of these values was late, in the process where it was the latest.",
        MAX,
        (),
        lambda: _one(load.loop_delay),
    ),
)
"""The metrics of a process. Each is read once a second."""
