"""Prometheus metrics of all processes of a server, and of what the database stores."""

from ags.operations.metrics.exposition import CONTENT_TYPE, render_metrics
from ags.operations.metrics.processes import close_metrics, open_metrics
from ags.operations.metrics.requests import Request, count_request

__all__ = ["CONTENT_TYPE", "Request", "close_metrics", "count_request", "open_metrics", "render_metrics"]
