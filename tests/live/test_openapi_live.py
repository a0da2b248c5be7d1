"""Schemathesis against the live server: what it is sent and answers is what `openapi.json` says."""

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
from tests.conftest import SERVICE, TRIAL, ClientApp, HeadEnd, add_trial
from tests.live.conftest import warm
from tests.live.server import ServerProcess
from tests.waiting import PATIENCE

LIMIT = 9 * PATIENCE
"""Seconds for all calls together."""

pytestmark = [pytest.mark.once, pytest.mark.timeout(10 * PATIENCE)]

MET = {
    "/ags/getSessionToken": (200, 400, 403, 415),
    "/ags/signOn": (400, 415),
    "/ags/subsequentSignOn": (201, 400, 401, 403, 415),
    "/ags/servicediscovery": (200, 400, 404),
}
"""The statuses that calls meet: they go all the way, and are refused on the steps of it.

What only one of all calls meets is left out: the calls vary with the name of the tenant.
"""

CONFIGURATION = """
request-timeout = {patience}
generation = {{ max-examples = {examples}, deterministic = true, database = "none" }}
continue-on-failure = true

# The schema cannot know whom the server knows. Most calls hold what the test has set up, so that they come as
# far as a session token; the others hold whatever the schema allows.
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
# Which parameters are mandatory, and that there are no others, is told by discovery for each service; that
# a member of a form is given once, and one of two members of a body, no schema can say. So a body that it
# allows may be refused with 400. Everywhere else that is a failure.
checks.positive_data_acceptance.expected-statuses = ["200", "201", "400", "401", "403"]
# A value that is too long may be part of a body that is too large.
checks.negative_data_rejection.expected-statuses = ["400", "401", "403", "405", "413", "415"]

# The same, at the service that signs on directly. Of what the schema allows, hardly anything names just one
# parameter and just one device: tests/api/test_openapi.py holds the good answers of signOn to the schema.
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
def test_it_answers_as_openapi_says_to_what_that_allows_and_to_what_it_forbids(
    two_with_dummy: tuple[ServerProcess, ServerProcess], nagra: HeadEnd, tmp_path: Path, examples: int
) -> None:
    server, _ = two_with_dummy
    add_trial(nagra.tenant_id)
    app = ClientApp(warm(server, nagra))
    users = [token for _ in range(20) for token in app.choices()]
    configuration, calls = tmp_path / "schemathesis.toml", tmp_path / "calls.har"
    # A JSON string is a TOML string.
    known = {"tenant": nagra.tenant_id, "service": SERVICE, "trial": TRIAL, "token": nagra.token()}
    configuration.write_text(
        CONFIGURATION.format(
            **{name: json.dumps(its) for name, its in known.items()},
            users=json.dumps(users)[1:-1],
            patience=PATIENCE,
            examples=examples,
        )
    )
    program = [Path(sys.executable).with_name("schemathesis"), f"--config-file={configuration}"]
    done = subprocess.run(
        [*program, "run", OPENAPI_FILE, f"--url={server.url}", f"--report-har-path={calls}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = Counter(
        (urlsplit(call["request"]["url"]).path, call["response"]["status"])
        for call in json.loads(calls.read_text())["log"]["entries"]
    )
    missing = [
        (path, status) for path, statuses in MET.items() for status in statuses if not answers[path, status]
    ]
    assert not missing, f"{missing} of {answers}"
