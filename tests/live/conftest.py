"""Shared servers, and a new operator for each test."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ags.sessions.models import Event
from tests.support.clients import HeadEnd
from tests.support.live import get_server
from tests.support.operators import create_operator
from tests.support.server import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def threads_are_not_traced() -> Iterator[None]:
    """Disable coverage in the threads of these tests.

    CPython sometimes fails to trace a thread when many start at the same time.
    """
    trace = threading.gettrace()
    threading.settrace(None)
    yield
    threading.settrace(trace)


@pytest.fixture(scope="module")
def servers(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, ServerProcess]]:
    """The running servers, shared by the tests of a module in this process."""
    running: dict[str, ServerProcess] = {}
    yield running
    for server in running.values():
        server.stop()
    # A server stores refusals later than it responds, so these are events that no other test expects.
    with django_db_blocker.unblock():
        Event.unscoped.all().delete()


@pytest.fixture
def server(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server on the database of the tests."""
    return get_server(servers, "one", AGS_TRUSTED_PROXIES="1")


@pytest.fixture
def two_servers(
    server: ServerProcess, servers: dict[str, ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    """Two servers on the database of the tests."""
    return server, get_server(servers, "other", AGS_TRUSTED_PROXIES="1")


@pytest.fixture
def two_with_dummy(
    transactional_db: None, servers: dict[str, ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    """Two servers with the dummy provider, which needs DEBUG."""
    providers = "providers.operator_token,providers.dummy"
    changes = {"AGS_TRUSTED_PROXIES": "1", "AGS_PROVIDERS": providers, "DEBUG": "on"}
    return get_server(servers, "one with dummy", **changes), get_server(
        servers, "other with dummy", **changes
    )


@pytest.fixture
def nagra(transactional_db: None) -> HeadEnd:
    """A new operator with a unique tenant ID, because the servers are shared by several tests."""
    return create_operator(f"nagra-{next(_numbers)}", bytes(range(1, 33)), is_limited=False)
