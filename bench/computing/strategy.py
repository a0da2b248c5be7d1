"""A strategy that computes in Python, and accepts everybody."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from providers.contract import Endpoint, Example, Identity, KeyRing, Parameter, SessionTokenSettings, Strategy


class ComputingParameters(serializers.Serializer[Any]):
    """How long to compute."""

    Seconds = Parameter(description="Seconds.", max_length=5)


class Computing(Strategy):
    """Computes in a thread; on the event loop, as it should not, where the environment says so."""

    slug = "computing"
    label = "Computes"
    blocking = os.environ.get("BENCH_ON_THE_LOOP") != "1"
    endpoints = (Endpoint.GET_SESSION_TOKEN,)
    Parameters = ComputingParameters
    Settings = SessionTokenSettings
    example = Example(parameters={"Seconds": "1"})

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return an account after so many seconds of computing."""
        ends = time.thread_time() + float(parameters["Seconds"])
        while time.thread_time() < ends:
            sum(range(1000))
        return Identity("somebody")
