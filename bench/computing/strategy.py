"""A strategy that computes in Python, and then accepts the request."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from providers.contract import Endpoint, Example, Identity, KeyRing, Parameter, SessionTokenSettings, Strategy


class ComputingParameters(serializers.Serializer[Any]):
    """The time to compute."""

    Seconds = Parameter(description="Seconds.", max_length=5)


class Computing(Strategy):
    """Computes in a thread, or with BENCH_ON_THE_LOOP=1 on the event loop, which a provider must not do."""

    slug = "computing"
    label = "Computes"
    blocking = os.environ.get("BENCH_ON_THE_LOOP") != "1"
    endpoints = (Endpoint.GET_SESSION_TOKEN,)
    Parameters = ComputingParameters
    Settings = SessionTokenSettings
    example = Example(parameters={"Seconds": "1"})

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return an account after the given seconds of CPU time."""
        ends = time.thread_time() + float(parameters["Seconds"])
        while time.thread_time() < ends:
            sum(range(1000))
        return Identity("somebody")
