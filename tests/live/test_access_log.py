"""The access log of a server: key IDs, client addresses, severities."""

import json

import pytest

from ags import __version__
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.confused_tokens import EC
from tests.support.live import wait_until_served
from tests.support.server import ServerProcess
from tests.support.tokens import ENTERED, make_claims

SIGNED = "Signed JWT"


@pytest.fixture
def signed(nagra: HeadEnd) -> HeadEnd:
    """An operator with a service whose strategy verifies in a thread."""
    Service(
        tenant_id=nagra.tenant_id,
        name=SIGNED,
        strategy="signed_jwt",
        display_name=SIGNED,
        enabled=True,
        settings=ENTERED | {"public_keys": EC.pem, "key_id": "ec-1"},
    ).save()
    return nagra


def test_lines_have_the_key_id_and_the_client_address(transactional_db: None, signed: HeadEnd) -> None:
    providers = "providers.operator_token,providers.signed_jwt"
    with ServerProcess(AGS_LOG_LEVEL="INFO", AGS_TRUSTED_PROXIES="1", AGS_PROVIDERS=providers) as server:
        here = wait_until_served(server, signed)
        here.present(here.token(), x_correlation_id="good", x_forwarded_for="203.0.113.9, 198.51.100.7:4711")
        here.present(here.token(headers={"kid": "another"}), x_correlation_id="unknown")
        here.present("no token", x_correlation_id="none")
        value = EC.token(make_claims(), kid="ec-1")
        response = here.post(
            {"parameters": [{"name": "Token", "value": value}]},
            x_auth_service_id=SIGNED,
            x_correlation_id="thread",
        )
        assert response.status_code == 200
        good, unknown, none, thread = map(server.request_line, ("good", "unknown", "none", "thread"))
        assert good["process"] in server.workers()
    assert (good["kid"], good["client_address"]) == (signed.kid, "198.51.100.7")
    assert (unknown["kid"], unknown["client_address"]) == ("another", "127.0.0.1")
    assert (none["kid"], none["reason"]) == (None, "malformed")
    assert (thread["kid"], thread["status"]) == ("ec-1", 200)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_probes_are_logged_at_debug(transactional_db: None, level: str) -> None:
    probes = ("healthz", "readyz", "metrics")
    with ServerProcess(AGS_LOG_LEVEL=level) as server:
        client = server.client()
        for name in (*probes, "openapi.json"):
            client.get(f"/{name}", headers={"x-correlation-id": name})
        assert server.request_line("openapi.json")["level"] == "INFO"
        lines = [json.loads(line) for line in server.log.splitlines()]
    logged = {line["correlation_id"]: line["level"] for line in lines if line.get("correlation_id") in probes}
    assert logged == (dict.fromkeys(probes, "DEBUG") if level == "DEBUG" else {})


def test_the_start_line_has_the_version(transactional_db: None) -> None:
    with ServerProcess(AGS_LOG_LEVEL="INFO") as server:
        (line,) = (json.loads(line) for line in server.log.splitlines() if '"message": "starting"' in line)
    assert (line["version"], line["process"]) == (__version__, server.pid)
