"""Clients of the gateway: the head-end of an operator, the app of a subscriber, and a resource server."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from django.test import Client

SERVICE = "Customer Auth Service"
TRIAL = "Trial"


@dataclass
class HeadEnd:
    """The back office of an operator, with a tenant and a key.

    `client` is Django's test client, or has its methods `get` and `generic`.
    """

    tenant_id: str
    kid: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"
    client: Any = field(default_factory=lambda: Client(raise_request_exception=False), repr=False)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid token. A change to None removes the claim."""
        valid = {
            "typ": "GetSessionTokenAuthN",
            "aud": "ags",
            "exp": int(time.time()) + 300,
            "OpfTenantId": self.tenant_id,
            "OpfAccountId": "account-1",
        }
        return {name: value for name, value in (valid | changes).items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a signed OperatorAuthToken."""
        return jwt.encode(
            self.claims(**changes), self.secret, self.algorithm, {"kid": self.kid} | (headers or {})
        )

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Return the headers of a valid request. A change to None removes the header."""
        valid = {"nv-tenant-id": self.tenant_id, "x-auth-service-id": SERVICE}
        changed = valid | {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in changed.items() if value is not None}

    def post(self, body: Any, **headers: str | None) -> Any:
        """Post a body to getSessionToken: bytes and text unchanged, anything else as JSON."""
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        content_type = headers.pop("content_type", "application/json")
        return self.client.generic(
            "POST", "/ags/getSessionToken", raw, content_type, headers=self.headers(**headers)
        )

    def present(self, token: str, **headers: str | None) -> Any:
        """Post an OperatorAuthToken."""
        return self.post({"parameters": [{"name": "OperatorAuthToken", "value": token}]}, **headers)

    def discover(self, **headers: str | None) -> Any:
        """Request the available services."""
        return self.client.get(
            "/ags/servicediscovery", headers=self.headers(**{"x_auth_service_id": None, **headers})
        )


@dataclass
class ClientApp:
    """The app of a subscriber. `tokens` is the latest token response."""

    head_end: HeadEnd
    client: Any = None
    tokens: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.client = self.client or self.head_end.client

    def call(self, path: str, body: Any = None, **headers: str | None) -> Any:
        """Post to a path: JSON, or no body."""
        content_type = "application/json" if body is not None else ""
        raw = body if isinstance(body, bytes | str) else json.dumps(body) if body is not None else ""
        return self.client.generic(
            "POST",
            path,
            raw,
            headers.pop("content_type", content_type),
            headers=self.head_end.headers(**headers),
        )

    def redeem(self, session_token: str, **members: Any) -> Any:
        """Redeem a session token, as a new device unless `members` says otherwise."""
        device = members or {"deviceInformation": {"deviceType": "Android", "anything": [1, {"else": None}]}}
        body = {"parameters": [{"name": "sessionToken", "value": session_token}], **device}
        return self.call("/ags/signOnWithSessionToken", body)

    def session_token(self, account: str = "account-1") -> str:
        """Return a new session token, which the head-end would show as a QR code."""
        response = self.head_end.present(self.head_end.token(OpfAccountId=account))
        token: str = response.json()["sessionToken"]
        return token

    def sign_on(self, account: str = "account-1", **members: Any) -> Any:
        """Sign on with a new session token, and keep the tokens."""
        response = self.redeem(self.session_token(account), **members)
        if response.status_code == 201:
            self.tokens = response.json()
        return response

    def sign_on_directly(self, account: str, *, origin: str | None = None, **members: Any) -> Any:
        """Sign on with the trial service, and keep the tokens."""
        device = members or {"deviceInformation": {"deviceType": "Android"}}
        body = {"parameters": [{"name": "Account", "value": account}], **device}
        response = self.call("/ags/signOn", body, x_auth_service_id=TRIAL, origin=origin)
        if response.status_code == 201:
            self.tokens = response.json()
        return response

    def request_choices(self, accounts: str = "account-1,account-2", **members: Any) -> list[str]:
        """Return the user account tokens of several accounts, in their order."""
        response = self.sign_on_directly(accounts, **members)
        return [account["userAccountToken"] for account in response.json()["accounts"]]

    def choose_account(self, user_token: str | None, body: Any = None, **headers: str | None) -> Any:
        """Choose the account of a user account token, and keep the tokens."""
        sent = {"x_auth_service_id": TRIAL, "user_token": user_token, **headers}
        response = self.call("/ags/subsequentSignOn", body, **sent)
        if response.status_code == 201:
            self.tokens = response.json()
        return response

    def refresh(self, token: str | None = None, **headers: str | None) -> Any:
        """Refresh with the current token, and keep the tokens; or with another token."""
        bearer = f"Bearer {token or self.tokens['refresh_token']}"
        sent = {"x_auth_service_id": None, "authorization": bearer, **headers}
        response = self.call("/ias/v3/token/actions/refresh", **sent)
        if response.status_code == 200 and token is None:
            self.tokens = response.json()
        return response

    def sign_out(self, token: str | None = None, **headers: str | None) -> Any:
        """Sign out with the current access token or another."""
        bearer = f"Bearer {token or self.tokens['access_token']}"
        return self.call("/ags/signOut", **{"authorization": bearer, **headers})


@dataclass
class Platform:
    """A resource server of an operator, which introspects and revokes tokens."""

    client_id: str
    secret: str = field(repr=False)
    client: Any = field(default_factory=lambda: Client(raise_request_exception=False), repr=False)

    @property
    def basic(self) -> str:
        """The Authorization header (RFC 6749, section 2.3.1)."""
        return "Basic " + base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()

    def post(self, path: str, form: Any, **headers: str | None) -> Any:
        """Post a form: pairs, or text and bytes unchanged. A header of None is not sent."""
        raw = form if isinstance(form, bytes | str) else urlencode(form)
        content_type = headers.pop("content_type", "application/x-www-form-urlencoded")
        all_headers = {"authorization": self.basic, **{n.replace("_", "-"): v for n, v in headers.items()}}
        return self.client.generic(
            "POST",
            path,
            raw,
            content_type,
            headers={name: value for name, value in all_headers.items() if value is not None},
        )

    def introspect(self, token: str, *, hint: str | None = None, **headers: str | None) -> Any:
        """Introspect a token."""
        form = {"token": token} | ({} if hint is None else {"token_type_hint": hint})
        return self.post("/oauth/introspect", form, **headers)

    def revoke(self, token: str, **headers: str | None) -> Any:
        """Revoke a token."""
        return self.post("/oauth/revoke", {"token": token}, **headers)

    def is_active(self, token: str) -> bool:
        """Return True if the token is active. Finds access and refresh tokens."""
        active: bool = self.introspect(token, hint="refresh_token").json()["active"]
        return active
