"""Schemathesis: the server behaves as `openapi.json` describes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ags.api.views.docs import OPENAPI_FILE
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.live import wait_until_served
from tests.support.operators import add_trial_service
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE

LIMIT = 9 * PATIENCE
"""Timeout for all calls, in seconds."""

pytestmark = [pytest.mark.once, pytest.mark.timeout(10 * PATIENCE)]

REQUIRED_STATUSES = {
    "/ags/getSessionToken": (200, 400, 403, 415),
    "/ags/signOn": (400, 415),
    "/ags/subsequentSignOn": (201, 400, 401, 403, 415),
    "/ags/servicediscovery": (200, 400, 404),
}
"""Statuses that must occur, so that the calls cover all steps of a request.

Rare statuses are omitted: the calls depend on the tenant ID.
"""

CONFIGURATION = """
request-timeout = {patience}
generation = {{ max-examples = {examples}, deterministic = true, database = "none" }}
continue-on-failure = true

# The schema does not contain the tenants and tokens of the server. Most calls use those of this test, so that
# they get a session token; the others use arbitrary values of the schema.
[dictionaries]
tenant.values = [{tenant}]
service.values = [{service}]
trial.values = [{trial}]
name.values = ["OperatorAuthToken", "sessionToken"]
account.values = ["Account"]
token.values = [{token}]
accounts.values = ["account-1", "account-1,account-2", "nobody"]
user.values = [{users}]

[parameters]
"header.nv-tenant-id" = {{ dictionary = "tenant", probability = 0.8 }}
"header.x-auth-service-id" = {{ dictionary = "service", probability = 0.8 }}
"body.parameters[*].name" = {{ dictionary = "name", probability = 0.8 }}
"body.parameters[*].value" = {{ dictionary = "token", probability = 0.8 }}

[[operations]]
include-operation-id = ["getSessionToken", "signOnWithSessionToken", "introspect", "revoke"]
# A valid body may be rejected with 400: the parameters are declared by discovery for each service, and the
# schema cannot express that form fields must not be repeated. For other operations, this is a failure.
checks.positive_data_acceptance.expected-statuses = ["200", "201", "400", "401", "403"]
# A value that is too long may make the body too large.
checks.negative_data_rejection.expected-statuses = ["400", "401", "403", "405", "413", "415"]

# The same for the service with direct sign-on. Valid bodies with exactly one parameter and one device are
# rare: tests/api/test_openapi.py checks successful responses of signOn.
[[operations]]
include-operation-id = ["signOn", "subsequentSignOn"]
checks.positive_data_acceptance.expected-statuses = ["201", "300", "400", "401", "403"]
checks.negative_data_rejection.expected-statuses = ["400", "401", "403", "405", "413", "415"]
[operations.parameters]
"header.nv-tenant-id" = {{ dictionary = "tenant", probability = 0.8 }}
"header.x-auth-service-id" = {{ dictionary = "trial", probability = 0.8 }}
"header.User-Token" = {{ dictionary = "user", probability = 0.8 }}
"body.parameters[*].name" = {{ dictionary = "account", probability = 0.9 }}
"body.parameters[*].value" = {{ dictionary = "accounts", probability = 0.9 }}
"""


@pytest.mark.parametrize("examples", [50, pytest.param(200, marks=pytest.mark.full)])
def test_server_conforms_to_openapi(
    two_with_dummy: tuple[ServerProcess, ServerProcess], nagra: HeadEnd, tmp_path: Path, examples: int
) -> None:
    server, _ = two_with_dummy
    add_trial_service(nagra.tenant_id)
    app = ClientApp(wait_until_served(server, nagra))
    users = [token for _ in range(20) for token in app.request_choices()]
    configuration, calls = tmp_path / "schemathesis.toml", tmp_path / "calls.har"
    # A JSON string is a TOML string.
    known = {"tenant": nagra.tenant_id, "service": SERVICE, "trial": TRIAL, "token": nagra.token()}
    configuration.write_text(
        CONFIGURATION.format(
            **{name: json.dumps(value) for name, value in known.items()},
            users=json.dumps(users)[1:-1],
            patience=PATIENCE,
            examples=examples,
        )
    )
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={configuration}"]
    done = subprocess.run(
        [*command, "run", str(OPENAPI_FILE), f"--url={server.url}", f"--report-har-path={calls}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    responses = Counter(
        (urlsplit(call["request"]["url"]).path, call["response"]["status"])
        for call in json.loads(calls.read_text())["log"]["entries"]
    )
    missing = [
        (path, status)
        for path, statuses in REQUIRED_STATUSES.items()
        for status in statuses
        if not responses[path, status]
    ]
    assert not missing, f"{missing} of {responses}"
