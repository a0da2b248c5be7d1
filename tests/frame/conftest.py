"""What tests of several commands share: a port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream.process import reserved_port


@pytest.fixture
def port() -> Iterator[int]:
    """A port of loopback for a server to bind, which no other process gets meanwhile."""
    with reserved_port() as reserved:
        yield reserved
