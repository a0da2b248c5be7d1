"""This commit on installations that other commits made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.db import connection

from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.database import empty_database
from tests.support.markers import skip_unless_installed
from tests.support.server import ServerProcess, run_manage
from tests.upgrade.installation import Installation, installations, query, use_token
from tests.upgrade.staff_client import StaffClient

pytestmark = [
    pytest.mark.django_db,  # on both databases
    skip_unless_installed(
        modules={
            "ldap": "pip install --require-hashes -r requirements/ldap.txt",
            "pyrad": "pip install --require-hashes -r requirements/radius.txt",
        }
    ),
]

ROWS = {
    "tenants/tenant": "SELECT id FROM tenants_tenant",
    "tenants/service": "SELECT id FROM tenants_service",
    "tenants/key": "SELECT id FROM tenants_key",
    "tenants/signingkey": "SELECT id FROM tenants_signingkey",
    "tenants/resourceserver": "SELECT id FROM tenants_resourceserver",
    "ags_sessions/account": "SELECT min(id) FROM ags_sessions_account"
    " GROUP BY status, revoked_before IS NULL",
    "ags_sessions/device": "SELECT min(id) FROM ags_sessions_device GROUP BY status, ended_at IS NULL",
    "ags_sessions/sessiontoken": "SELECT min(id) FROM ags_sessions_sessiontoken"
    " GROUP BY redeemed_at IS NULL, revoked_at IS NULL",
    "ags_sessions/securityevent": "SELECT id FROM ags_sessions_securityevent",
    "auth/user": "SELECT id FROM auth_user",
}
"""The rows whose pages are opened, by model: each, or one of each state."""


DIFFERENCES = {
    # It stored the line end of a secret, which is left out now. The key is read with and without it.
    "fae518b": ["~ service nagra/Login: settings.private_key changed"],
}
"""What `apply` would change in the configuration that a commit applied, by commit."""


@pytest.fixture
def url(db: None, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path}/upgraded.sqlite3"
    else:
        with empty_database("upgraded") as address:
            yield address


@pytest.mark.parametrize("installation", installations(connection.vendor), ids=str)
def test_what_an_older_commit_stored_and_issued_keeps_working(
    installation: Installation, url: str, tmp_path: Path
) -> None:
    installation.load(url)
    credentials = installation.credentials
    environment = {**credentials["environment"], "DATABASE_URL": url}

    migrated = run_manage("migrate", **environment)
    assert (migrated.returncode, migrated.stderr) == (0, "")
    differences = DIFFERENCES.get(str(installation), [])
    check_configuration(credentials, tmp_path / "configuration.yaml", environment, differences)
    with ServerProcess(**environment) as server:
        # `serve` runs every system check, those of the database included, and prints the warnings.
        assert "System check" not in server.log
        nagra, sunrise = (
            HeadEnd(tenant, key["kid"], key["secret"].encode(), key["algorithm"], server)
            for tenant, key in credentials["head_ends"].items()
        )
        check_services(credentials, nagra, sunrise)
        check_single_use(credentials, nagra)
        check_sign_ons(credentials, nagra, sunrise)
        check_stolen_token(credentials, nagra, url)
        check_pages(credentials, server.url, url)


def check_configuration(
    credentials: dict[str, Any], file: Path, environment: dict[str, str], differences: list[str]
) -> None:
    """Compare with the file that was applied: settings are the same, and so are secrets once decrypted."""
    for tenant in credentials["configuration"]["tenants"]:
        for key in tenant["keys"]:
            for shifted in ("not_before", "not_after"):
                key.pop(shifted, None)
    file.write_text(json.dumps(credentials["configuration"]))
    compared = run_manage("apply", "--dry-run", str(file), **credentials["secrets"], **environment)
    *lines, _ = compared.stdout.splitlines()  # the last one says that it was a dry run
    assert lines == differences


def check_services(credentials: dict[str, Any], nagra: HeadEnd, sunrise: HeadEnd) -> None:
    for head_end in (nagra, sunrise):
        services = head_end.discover().json()["availableServices"]
        names = sorted(service["authServiceName"] for service in services)
        assert names == credentials["services"][head_end.tenant_id]
    # By a secret that head-end and AGS share
    assert nagra.present(nagra.token(jti="new")).status_code == 200
    assert nagra.present(nagra.token(jti="new")).status_code == 401
    assert sunrise.present(sunrise.token(jti="new")).status_code == 200
    # By public keys of the operator
    key = credentials["signed_jwt"]
    claims = {"sub": "kept", "exp": int(time.time()) + 60, **key["claims"]}
    token = jwt.encode(claims, key["private_key"], "ES256", {"kid": key["kid"]})
    body = {"parameters": [{"name": "Token", "value": token}]}
    assert nagra.post(body, x_auth_service_id="Signed JWT").status_code == 200
    # By a secret among the settings
    passphrase = credentials["secrets"]["PASSPHRASE"]
    for value, status in {passphrase: 200, f"{passphrase}x": 401}.items():
        parameters = {"Account": "kept", "Passphrase": value}
        body = {"parameters": [{"name": name, "value": text} for name, text in parameters.items()]}
        assert nagra.post(body, x_auth_service_id="Trial with a passphrase").status_code == status


def check_single_use(credentials: dict[str, Any], nagra: HeadEnd) -> None:
    app = ClientApp(nagra)
    for jti in credentials["used_jtis"]:
        answer = nagra.present(nagra.token(jti=jti))
        assert (answer.status_code, answer.json()["reason"]) == (401, "replayed")
    for token in credentials["session_tokens"]:
        assert app.redeem(token).status_code == 201
        assert app.redeem(token).status_code == 401
    assert app.choose_account(credentials["user_account_token"]).status_code == 201
    assert app.choose_account(credentials["user_account_token"]).status_code == 401
    for one in credentials["refusals"]:
        answer = use_token(app, one["kind"], one["token"])
        assert (answer.status_code, answer.json()["code"]) == (one["status"], one["code"]), one["name"]


def check_sign_ons(credentials: dict[str, Any], nagra: HeadEnd, sunrise: HeadEnd) -> None:
    platform = Platform(**credentials["resource_server"], client=nagra.client)
    app = ClientApp(nagra, tokens=credentials["sign_on"])
    issued = app.tokens
    # The key that signed the access token does not sign any more.
    assert platform.introspect(issued["access_token"]).json()["accountId"] == "kept"
    assert platform.is_active(issued["refresh_token"])
    assert not platform.is_active(credentials["revoked_access_token"])
    for _ in range(2):
        assert app.refresh().status_code == 200
        assert platform.is_active(app.tokens["access_token"])
    assert app.tokens["client_id"] == issued["client_id"]
    assert not platform.is_active(issued["refresh_token"])
    assert app.sign_out().status_code == 200
    assert not platform.is_active(app.tokens["refresh_token"])

    device = credentials["known_device"]
    again = app.sign_on(device["account"], clientId=device["client_id"])
    assert (again.status_code, again.json()["client_id"]) == (201, device["client_id"])

    limited = ClientApp(sunrise, tokens=credentials["limited_sign_on"])
    token = sunrise.present(sunrise.token(OpfAccountId="limited", jti="limited")).json()["sessionToken"]
    assert limited.redeem(token).json()["reason"] == "device_limit_reached"
    assert limited.refresh().status_code == 200


def check_stolen_token(credentials: dict[str, Any], nagra: HeadEnd, url: str) -> None:
    count = "SELECT count(*) FROM ags_sessions_securityevent WHERE account_id = 'stolen'"
    app = ClientApp(nagra)
    assert query(url, count) == [(0,)]
    # Reuse of the first ends the sign-on, and with it the last one, which is unused.
    assert [app.refresh(token).status_code for token in credentials["stolen_refresh_tokens"]] == [
        401,
        401,
        401,
    ]
    assert query(url, count) == [(1,)]


def check_pages(credentials: dict[str, Any], server: str, url: str) -> None:
    staff = StaffClient(server)
    assert staff.log_in(**credentials["staff"]["staff"])[0] == 200
    for model, rows in ROWS.items():
        numbers = [number for (number,) in query(url, rows)]
        assert numbers, model
        pages = [f"/admin/{model}/{number}/change/" for number in numbers]
        assert {page: staff.get(page)[0] for page in pages} == dict.fromkeys(pages, 200)
    # A person who is assigned to one of the tenants
    staff = StaffClient(server)
    assert staff.log_in(**credentials["staff"]["operator-staff"])[0] == 200
    _, page = staff.get("/admin/tenants/tenant/")
    assert "nagra" in page
    assert "sunrise" not in page
