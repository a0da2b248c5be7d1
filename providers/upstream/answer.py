"""What an upstream has answered, and what an answer means that says nothing of the matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.contract import Outage, Unavailable
from providers.strict_json import NotStrictJSON, parse

DEPTH = 8
"""Levels of the JSON that an upstream answers at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream has answered. Names of headers are in lower case; `body` begins after a UTF-8 BOM."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json_object(self) -> dict[str, Any]:
        """Return the JSON object that it is. Raises `Unavailable(WRONG)` when it is none."""
        try:
            value = parse(self.body, DEPTH)
        except NotStrictJSON:
            value = None
        if not isinstance(value, dict):
            raise Unavailable(Outage.WRONG, "its answer is no JSON object")
        return value

    def outage(self) -> Unavailable:
        """Return what this status means where nothing else is made of it."""
        if self.status in {401, 403}:
            return Unavailable(Outage.REFUSES_US)
        away = self.status == 429 or self.status >= 500
        return Unavailable(Outage.AWAY if away else Outage.WRONG, f"it answers {self.status}")
