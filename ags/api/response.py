"""The response of the API: JSON, its only format."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Response(HttpResponse):
    """JSON, without white space."""

    def __init__(self, data: Any, status: int = 200) -> None:
        super().__init__(_encode(data).encode(), status=status, content_type="application/json")
