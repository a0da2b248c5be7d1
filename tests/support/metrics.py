"""Reading `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Client

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def parse_metrics(text: str) -> Samples:
    """Return the samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> Samples:
    """Request the metrics over a new connection, which any process of the server may accept."""
    client = Client(port)
    try:
        response = client.get("/metrics")
        assert response.status_code == 200
        return parse_metrics(response.content.decode())
    finally:
        client.close()


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of the name that have these labels, among others."""
    return sum(value for (each, own), value in samples.items() if each == name and labels.items() <= set(own))
