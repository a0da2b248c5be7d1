"""Database connections and memory of a worker with all providers and many upstreams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import psutil
import psycopg
import pytest

from ags.explanations.links import build_path
from tenants.models import DocumentHealth, Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_url
from tests.support.explanation_pages import add_refusal, create_explanation_link
from tests.support.live import wait_until_served
from tests.support.server import ServerProcess
from tests.support.tokens import ISSUER, make_claims
from tests.support.upstream.https import HTTPSServer, as_json
from tests.support.upstream.signer import signer
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.full]

CONNECTIONS = 4
STAFF_CONNECTIONS = 3
"""For explanation links, too, without the pages of staff."""

MEMORY = 100_000_000
"""Bytes."""

SERVICES = 60
"""Each with the JWK set of an upstream."""

REQUESTS = 400
CLIENTS = 8

PROVIDERS = [
    "ldap",
    "oidc_id_token",
    "operator_login",
    "operator_token",
    "radius",
    "signed_jwt",
    "token_introspection",
]

DEVELOPMENT_PACKAGES = ["anyio", "jinja2", "markdown", "pygments", "requests"]
"""Development packages that libraries import if they are installed."""

NAME = "footprint"
SIGNER = signer("ES256")


@pytest.fixture
def upstream() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.default_reply = as_json({"keys": [SIGNER.jwk()]})
        yield running


@pytest.fixture
def server(transactional_db: None, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server without development packages and coverage."""
    site = f"import sys\nsys.modules.update(dict.fromkeys({DEVELOPMENT_PACKAGES}))\n"
    (tmp_path / "sitecustomize.py").write_text(site)
    url = database_url()
    with ServerProcess(
        AGS_ADMIN="off",
        AGS_PROVIDERS=",".join(f"providers.{name}" for name in PROVIDERS),
        COVERAGE_PROCESS_CONFIG="",
        COVERAGE_PROCESS_START="",
        DATABASE_URL=f"{url}{'&' if '?' in url else '?'}application_name={NAME}",
        AGS_TRUSTED_PROXIES="1",
        PYTHONPATH=str(tmp_path),
    ) as server:
        yield server


def add_services(tenant_id: str, upstream: HTTPSServer) -> list[str]:
    names = [f"key-set-{number}" for number in range(SERVICES)]
    for name in names:
        Service(
            tenant_id=tenant_id,
            name=name,
            strategy="signed_jwt",
            display_name=name,
            enabled=True,
            settings={
                "keys_from": "address",
                "key_set_address": f"{upstream.url}/{name}",
                "issuer": ISSUER,
                "audience": "ags",
                **upstream.settings,
            },
        ).save()
    return names


@contextmanager
def counted_connections() -> Iterator[list[int]]:
    """Count the connections of the server continuously; yield the list of the counts."""
    counts: list[int] = []
    has_ended = Event()

    def count() -> None:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(database_url(), autocommit=True) as pg:
            while not has_ended.is_set():
                counts.extend(number for (number,) in pg.execute(statement, [NAME]))

    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(count)
        try:
            yield counts
        finally:
            has_ended.set()
        counting.result(PATIENCE)


def test_worker_has_four_database_connections_and_at_most_100_mb(
    server: ServerProcess, nagra: HeadEnd, upstream: HTTPSServer
) -> None:
    names = add_services(nagra.tenant_id, upstream)
    body = {"parameters": [{"name": "Token", "value": SIGNER.token(make_claims(exp=int(time.time()) + 600))}]}
    numbers = iter(range(REQUESTS))

    def request() -> None:
        here = replace(nagra, client=server.client())
        app = ClientApp(here)
        for number in numbers:
            if number % 4:
                here.post(body, x_auth_service_id=names[number % SERVICES])
            else:
                assert app.sign_on(f"account-{number}").status_code == 201
                assert app.refresh().status_code == 200

    with counted_connections() as counts, ThreadPoolExecutor(CLIENTS) as pool:
        for client in [pool.submit(request) for _ in range(CLIENTS)]:
            client.result(PATIENCE)
        wait_until(
            lambda: DocumentHealth.objects.for_tenant(nagra.tenant_id).count() == SERVICES,
            "the outcome of a fetch is not stored",
        )
    assert max(counts) == CONNECTIONS
    (worker,) = server.workers()
    assert psutil.Process(worker).memory_info().rss <= MEMORY


def test_openings_of_links_use_at_most_three_more_connections(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    refusal = add_refusal(nagra.tenant_id)
    paths = [
        build_path(create_explanation_link(nagra.tenant_id, f"event:{refusal.pk}")) for _ in range(CLIENTS)
    ]

    def open_link(path: str) -> None:
        client = server.client()
        for _ in range(20):
            assert client.get(path, headers={"x-forwarded-proto": "https"}).status_code == 200

    with counted_connections() as counts, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(open_link, paths))
    assert max(counts) <= CONNECTIONS + STAFF_CONNECTIONS
