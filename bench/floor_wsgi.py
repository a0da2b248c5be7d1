"""The floor: the least that Python has to do for the same work, as a bare WSGI function.

No framework, no configuration, no checks beside signature and secret; PyJWT verifies and signs, and psycopg
runs one prepared statement for each decision. No server can ask less of the same language, library and
database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec

SECRET = b64decode(os.environ["BENCH_SECRET"])
RESOURCE_SERVER = os.environ["BENCH_RESOURCE_SERVER"]
RESOURCE_HASH = hashlib.sha256(os.environ["BENCH_RESOURCE_SECRET"].encode()).digest()
# Not DATABASE_URL, which AGS reads: the guard has both in one process.
DATABASE = os.environ["FLOOR_DATABASE_URL"]

REFRESH_KEY = hashlib.sha256(b"refresh" + SECRET).digest()
# Derived, so that every process has the same.
PRIVATE = ec.derive_private_key(
    int.from_bytes(hashlib.sha256(b"access" + SECRET).digest()[1:]), ec.SECP256R1()
)
PUBLIC = PRIVATE.public_key()

TENANT = "bench"
ACCESS_TTL, REFRESH_TTL, FIXED_TTL = 3600, 172_800, 7_776_000

INSERT = "INSERT INTO session_token VALUES (%b, %b, %b, now(), now() + interval '5 minutes')"

# Statements are put together from constants.
# ruff: noqa: S608

# Three, as the rules want it: how many devices an account has can only be counted once it is held. (Nobody
# counts here.)
SPEND = (
    "UPDATE session_token SET redeemed_at = now()"
    " WHERE hash = %b AND redeemed_at IS NULL AND expires_at > now() RETURNING account"
)
HOLD = (
    "INSERT INTO account (tenant, name, status, created_at) VALUES (%b, %b, 'active', now())"
    " ON CONFLICT (tenant, name) DO UPDATE SET status = account.status RETURNING id"
)
ENROL = (
    "INSERT INTO device (account, client_id, sign_on, information, signed_on_at, generation,"
    " fixed_expires_at, refresh_expires_at) VALUES (%b, %b, %b, %b::jsonb, now(), 0,"
    f" now() + interval '{FIXED_TTL} seconds', now() + interval '{REFRESH_TTL} seconds')"
)

ROTATE = (
    "UPDATE device SET generation = generation + 1,"
    f" refresh_expires_at = least(now() + interval '{REFRESH_TTL} seconds', fixed_expires_at)"
    " WHERE sign_on = %b AND generation = %b AND refresh_expires_at > now() AND ended_at IS NULL"
    " RETURNING generation, extract(epoch FROM refresh_expires_at)::float8,"
    " extract(epoch FROM fixed_expires_at)::float8"
)

LOOK = (
    "SELECT a.name, d.client_id FROM device d JOIN account a ON a.id = d.account"
    " WHERE d.sign_on = %b AND d.ended_at IS NULL AND d.fixed_expires_at > now() AND a.status = 'active'"
)

_here = threading.local()


def cursor() -> psycopg.Cursor[Any]:
    """This thread's cursor, on a connection of its own that commits each statement."""
    try:
        found: psycopg.Cursor[Any] = _here.cursor
    except AttributeError:
        connection = psycopg.connect(DATABASE, autocommit=True)
        connection.prepare_threshold = 0
        found = _here.cursor = connection.cursor(binary=True)
    return found


def _body(environ: dict[str, Any]) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return body


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def get_session_token(environ: dict[str, Any]) -> dict[str, Any]:
    """Verify what a head-end has signed, and store a session token."""
    claims = jwt.decode(
        json.loads(_body(environ))["parameters"][0]["value"], SECRET, ["HS256"], audience="ags"
    )
    token = secrets.token_hex(16)
    cursor().execute(INSERT, (_hash(token), claims["OpfTenantId"], claims["OpfAccountId"]))
    return {"sessionToken": token}


def sign_on(environ: dict[str, Any]) -> dict[str, Any]:
    """Spend a session token for a new device."""
    body = json.loads(_body(environ))
    spent = _hash(body["parameters"][0]["value"])
    client_id, sign_on = secrets.token_hex(16), secrets.token_hex(16)
    here = cursor()
    with here.connection.transaction():
        account = here.execute(SPEND, (spent,)).fetchone()[0]
        held = here.execute(HOLD, (TENANT, account)).fetchone()[0]
        here.execute(ENROL, (held, client_id, sign_on, json.dumps(body["deviceInformation"])))
    now = time.time()
    return _bundle(account, client_id, sign_on, (0, now + REFRESH_TTL, now + FIXED_TTL))


def refresh(environ: dict[str, Any]) -> dict[str, Any]:
    """Use a refresh token up."""
    token = environ["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    claims = jwt.decode(token, REFRESH_KEY, ["HS256"])
    sign_on, _, generation = claims["jti"].partition(".")
    found = cursor().execute(ROTATE, (sign_on, int(generation))).fetchone()
    return _bundle(claims["accountId"], claims["deviceId"], sign_on, found)


def introspect(environ: dict[str, Any]) -> dict[str, Any]:
    """Tell a resource server what an access token is."""
    pair = b64decode(environ["HTTP_AUTHORIZATION"].removeprefix("Basic ")).decode()
    name, _, secret = pair.partition(":")
    if name != RESOURCE_SERVER or not hmac.compare_digest(RESOURCE_HASH, _hash(secret)):
        raise PermissionError
    token = parse_qs(_body(environ).decode())["token"][0]
    claims = jwt.decode(token, PUBLIC, ["ES256"], audience=TENANT)
    account, device = cursor().execute(LOOK, (claims["sid"],)).fetchone()
    told = {name: claims[name] for name in ("typ", "ver", "sid", "jti", "iat", "exp", "iss", "aud")}
    whose = {"tenantId": TENANT, "accountId": account, "userId": account, "deviceId": device}
    active = {"active": True, "token_type": "bearer", "client_id": device, "sub": account}
    return {**told, **whose, **active}


def _bundle(account: str, client_id: str, sign_on: str, rotated: tuple[int, float, float]) -> dict[str, Any]:
    now = int(time.time())
    generation, refresh_expires, fixed_expires = rotated
    whose = {"tenantId": TENANT, "accountId": account, "userId": account, "deviceId": client_id}
    access = {
        "typ": "DevAuthN",
        "ver": "1.0",
        **whose,
        "sid": sign_on,
        "jti": secrets.token_hex(16),
        "iat": now,
        "exp": now + ACCESS_TTL,
        "iss": "ags",
        "aud": TENANT,
    }
    refresh = {
        "typ": "RefreshAuthN",
        "ver": "1.0",
        **whose,
        "jti": f"{sign_on}.{generation}",
        "exp": int(refresh_expires),
        "fixed_exp": int(fixed_expires),
    }
    return {
        "access_token": jwt.encode(access, PRIVATE, "ES256", {"kid": "access"}),
        "refresh_token": jwt.encode(refresh, REFRESH_KEY, "HS256", {"kid": "refresh"}),
        "token_type": "bearer",
        "client_id": client_id,
        "accountId": account,
        "expires_in": ACCESS_TTL,
        "refresh_expires_in": int(refresh_expires) - now,
        "fixed_refresh_expires_in": int(fixed_expires) - now,
    }


PATHS = {
    "/ags/getSessionToken": ("200 OK", get_session_token),
    "/ags/signOnWithSessionToken": ("201 Created", sign_on),
    "/ias/v3/token/actions/refresh": ("200 OK", refresh),
    "/oauth/introspect": ("200 OK", introspect),
}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer."""
    status, answer = PATHS[environ["PATH_INFO"]]
    body = json.dumps(answer(environ)).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
