"""Submits change forms of the admin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.test import Client

_VERSION = re.compile(r'name="version" value="(\w+)"')


def form_version(client: Client, address: str) -> str:
    """Return the version that the form contains; empty if the user cannot change the row."""
    match = _VERSION.search(client.get(address).content.decode())
    return match[1] if match else ""


def submit_change(client: Client, address: str, data: Mapping[str, Any], **options: Any) -> Any:
    """Open the form, and submit it with the version that it contains, as a browser does."""
    return client.post(address, {**data, "version": form_version(client, address)}, **options)
