"""The servers of these tests, and an operator of each test's own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import SERVICE, HeadEnd, operator
from tests.live.server import ServerProcess
from tests.waiting import wait_until

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def threads_are_not_traced() -> Iterator[None]:
    """Leave the threads of these tests out of coverage: the servers are other processes.

    Where many threads begin to be traced at once, CPython refuses one now and then.
    """
    trace = threading.gettrace()
    threading.settrace(None)  # type: ignore[arg-type]
    yield
    threading.settrace(trace)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def servers(django_db_setup: None, django_db_blocker: object) -> Iterator[dict[str, ServerProcess]]:
    """The servers that are up, shared by all tests of this folder that run in this process.

    For a whole session, because the tests of other folders may run in between.
    """
    running: dict[str, ServerProcess] = {}
    yield running
    for server in running.values():
        server.stop()


def started(servers: dict[str, ServerProcess], name: str, **changes: str) -> ServerProcess:
    """Return the server of that name. The first test that needs it starts it."""
    if name not in servers:
        servers[name] = ServerProcess(**changes).__enter__()
    return servers[name]


@pytest.fixture
def server(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A live server on the database of the tests."""
    return started(servers, "one", AGS_TRUSTED_PROXIES="1")


@pytest.fixture
def two_servers(
    server: ServerProcess, servers: dict[str, ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    """Two live servers on the database of the tests."""
    return server, started(servers, "other", AGS_TRUSTED_PROXIES="1")


@pytest.fixture
def two_with_dummy(
    transactional_db: None, servers: dict[str, ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    """Two live servers whose tenants may also offer the dummy, which a production server refuses."""
    providers = "providers.operator_token,providers.dummy"
    changes = {"AGS_TRUSTED_PROXIES": "1", "AGS_PROVIDERS": providers, "DEBUG": "on"}
    return started(servers, "one with dummy", **changes), started(servers, "other with dummy", **changes)


@pytest.fixture
def nagra(transactional_db: None) -> HeadEnd:
    """The operator of the test, under a name that no test used before: the servers outlive a test."""
    return operator(f"nagra-{next(_numbers)}", bytes(range(1, 33)))


def at(server: ServerProcess, head_end: HeadEnd) -> HeadEnd:
    """The same head-end, talking to that server."""
    return replace(head_end, client=server)  # type: ignore[type-var]


def warm(server: ServerProcess, head_end: HeadEnd) -> HeadEnd:
    """The same head-end, talking to that server, which has seen its tenant."""
    here = at(server, head_end)
    wait_until(
        lambda: here.present(here.token()).status_code == 200,
        f"{SERVICE} does not come up on {server.url}",
    )
    return here
