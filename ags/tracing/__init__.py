"""Traces in the form of OpenTelemetry, for a collector that speaks OTLP over HTTP.

This module imports no library: without `settings.AGS_TRACES`, a process does not import OpenTelemetry.
"""

import os
from importlib.util import find_spec

from ags.env import env_str

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER")


def is_requested() -> bool:
    """Return whether the variables of OpenTelemetry name a collector. Its library reads all others."""
    url, disabled, exporter = (os.environ.get(name, "").strip() for name in _VARIABLES)
    is_off = disabled.lower() == "true" or exporter.lower() == "none"
    return not is_off and bool(env_str("OTEL_EXPORTER_OTLP_ENDPOINT", "") or url)


def is_library_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a parent package
        return False
