"""The requests to AGS and its floor, and the responses that they must return."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, repeat
from urllib.parse import urlencode
from uuid import uuid4

import jwt

from bench.load import Conversation, get, post
from bench.systems import Running

TENANT, SERVICE, KID = "bench", "Operator", "bench-key"
SECRET = secrets.token_bytes(32)
RESOURCE_SERVER, RESOURCE_SECRET = f"{TENANT}~platform", secrets.token_urlsafe(32)

CONNECTIONS = 16
"""Connections for the requests that prepare a round."""

INTROSPECTED = 256
"""Access tokens that are introspected in turn."""

_JWT = rb'"([\w-]+\.[\w-]+\.[\w-]+)"'
_ID, _ACCOUNT = rb'"[0-9a-f]{32}"', rb'"[0-9a-f-]{36}"'


def _object(*members: tuple[bytes, bytes]) -> bytes:
    """Return the pattern of a JSON object with these members and no other, with or without spaces."""
    return rb"^\{" + rb", ?".join(rb'"%b": ?%b' % member for member in members) + rb"\}$"


ISSUED = _object((b"sessionToken", b'"([a-z2-7]{26}|[0-9a-f]{32})"'))
BUNDLE = _object(
    (b"access_token", _JWT),
    (b"refresh_token", _JWT),
    (b"token_type", b'"bearer"'),
    (b"client_id", _ID),
    (b"accountId", _ACCOUNT),
    (b"expires_in", b"3600"),
    (b"refresh_expires_in", rb"17\d{4}"),
    (b"fixed_refresh_expires_in", rb"77\d{5}"),
)
ACTIVE = _object(
    (b"typ", b'"DevAuthN"'),
    (b"ver", b'"1.0"'),
    (b"sid", _ID),
    (b"jti", _ID),
    *((name, rb"\d{10}") for name in (b"iat", b"exp")),
    (b"iss", b'"ags"'),
    (b"aud", b'"bench"'),
    (b"tenantId", b'"bench"'),
    *((name, _ACCOUNT) for name in (b"accountId", b"userId")),
    (b"deviceId", _ID),
    (b"active", b"true"),
    (b"token_type", b'"bearer"'),
    (b"client_id", _ID),
    (b"sub", _ACCOUNT),
)
OFFERED = rb'^\{"availableServices": ?\[\{"authServiceName": ?"Operator".*"path": ?"/signOut".*\}\]\}$'


def operator_token(account: str, tenant: str = TENANT, kid: str = KID, **more: str) -> str:
    """Return the JWT of a head-end; `more` are further claims."""
    claims = {
        "typ": "GetSessionTokenAuthN",
        "aud": "ags",
        "exp": int(time.time()) + 300,
        "OpfTenantId": tenant,
        "OpfAccountId": account,
        **more,
    }
    return jwt.encode(claims, SECRET, "HS256", {"kid": kid})


def _headers(tenant: str, service: str = SERVICE) -> dict[str, str]:
    return {"nv-tenant-id": tenant, "x-auth-service-id": service, "x-correlation-id": str(uuid4())}


def get_session_token(tenant: str = TENANT, service: str = SERVICE, token: str | None = None) -> bytes:
    """Return a request of a head-end for a session token."""
    proof = token or operator_token(str(uuid4()), tenant)
    body = {"parameters": [{"name": "OperatorAuthToken", "value": proof}]}
    return post("/ags/getSessionToken", json.dumps(body).encode(), _headers(tenant, service))


def sign_on(session_token: str) -> bytes:
    """Return a request of a client app to sign on a new device."""
    body = {
        "parameters": [{"name": "sessionToken", "value": session_token}],
        "deviceInformation": {"deviceType": "Android", "model": "Pixel 8", "os": "14"},
    }
    return post("/ags/signOnWithSessionToken", json.dumps(body).encode(), _headers(TENANT))


def refresh(refresh_token: str) -> bytes:
    """Return a request of a client app to refresh its tokens."""
    headers = {"nv-tenant-id": TENANT, "x-correlation-id": str(uuid4())}
    return post("/ias/v3/token/actions/refresh", b"", {**headers, "Authorization": f"Bearer {refresh_token}"})


def introspect(access_token: str) -> bytes:
    """Return a request of a resource server to introspect an access token."""
    pair = base64.b64encode(f"{RESOURCE_SERVER}:{RESOURCE_SECRET}".encode()).decode()
    form = urlencode({"token": access_token}).encode()
    return post(
        "/oauth/introspect", form, {"Authorization": f"Basic {pair}"}, "application/x-www-form-urlencoded"
    )


def head_ends(_running: Running) -> Iterator[bytes]:
    """Yield requests for session tokens, each for another account."""
    while True:
        yield get_session_token()


def head_end(requests: Iterable[bytes]) -> Conversation:
    """Request session tokens."""
    for request in requests:
        answer = yield request
        answer.expect(200, ISSUED)


def sign_ons(running: Running, number: int) -> Iterator[bytes]:
    """Yield `number` requests to sign on, each with a session token that is issued here."""
    return map(sign_on, _collect(running, (get_session_token() for _ in range(number)), 200, ISSUED, 1))


def client_app(requests: Iterable[bytes]) -> Conversation:
    """Sign on new devices."""
    for request in requests:
        answer = yield request
        answer.expect(201, BUNDLE)


def signing_on(running: Running, number: int, most: int) -> list[Conversation]:
    """Return conversations of client apps that sign on."""
    requests = iter(list(sign_ons(running, most)))
    return [client_app(requests) for _ in range(number)]


def staying_signed_on(running: Running, number: int, _most: int) -> list[Conversation]:
    """Return the conversations of devices that refresh: each sends the refresh token of the last response."""
    return [_stay(token) for token in _collect(running, sign_ons(running, number), 201, BUNDLE, 2)]


def _stay(token: str) -> Conversation:
    while True:
        answer = yield refresh(token)
        token = answer.expect(200, BUNDLE)[2].decode()


def resource_servers(running: Running) -> Iterator[bytes]:
    """Yield requests to introspect the access tokens of devices that are signed on here."""
    return cycle(map(introspect, _collect(running, sign_ons(running, INTROSPECTED), 201, BUNDLE, 1)))


def resource_server(requests: Iterable[bytes]) -> Conversation:
    """Introspect access tokens."""
    for request in requests:
        answer = yield request
        answer.expect(200, ACTIVE)


def discoveries(_running: Running) -> Iterator[bytes]:
    """Yield requests for the services of the tenant."""
    return repeat(get("/ags/servicediscovery", {"nv-tenant-id": TENANT}))


def discovery(requests: Iterable[bytes]) -> Conversation:
    """Request the services of the tenant."""
    for request in requests:
        answer = yield request
        answer.expect(200, OFFERED)


def _collect(
    running: Running, requests: Iterable[bytes], status: int, pattern: bytes, group: int
) -> list[str]:
    """Send the requests, and return the match of a group of the pattern in each response."""
    found: list[str] = []
    left = iter(requests)

    def keep() -> Conversation:
        for request in left:
            answer = yield request
            found.append(answer.expect(status, pattern)[group].decode())

    running.hold([keep() for _ in range(CONNECTIONS)])
    return found
