"""The asynchronous floor: a minimal application for the same work, on the server and event loop of AGS.

It has no framework, and checks only signatures and secrets. PyJWT verifies and signs. psycopg runs one
prepared statement for each decision. Session tokens that arrive while one is being stored share the next
statement. With this language, library and database, a server that issues session tokens cannot do less. For
the other kinds of work it is not a bound: a server that also batches their rows can be faster.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from gunicorn.app.base import BaseApplication

from ags.server.arbiter import Arbiter
from ags.server.worker import Worker

SECRET = b64decode(os.environ["BENCH_SECRET"])
RESOURCE_SERVER = os.environ["BENCH_RESOURCE_SERVER"]
RESOURCE_HASH = hashlib.sha256(os.environ["BENCH_RESOURCE_SECRET"].encode()).digest()
DATABASE = os.environ["DATABASE_URL"]

REFRESH_KEY = hashlib.sha256(b"refresh" + SECRET).digest()
# Derived from the secret, so that all processes have the same key
PRIVATE = ec.derive_private_key(
    int.from_bytes(hashlib.sha256(b"access" + SECRET).digest()[1:]), ec.SECP256R1()
)
PUBLIC = PRIVATE.public_key()

TENANT = "bench"
ACCESS_TTL, REFRESH_TTL, FIXED_TTL = 3600, 172_800, 7_776_000

CONNECTIONS = 4
"""PostgreSQL connections of a process, as in AGS. One of them stores session tokens."""

BODY_LIMIT = 64 * 1024

INSERT = (
    "INSERT INTO session_token SELECT hash, tenant, account, now(), now() + interval '5 minutes'"
    " FROM unnest(%b::bytea[], %b::text[], %b::text[]) AS row (hash, tenant, account)"
)

# These statements are built from constants.
# ruff: noqa: S608

# Three statements, because AGS locks the account before it counts the devices. The floor does not count.
REDEEM = (
    "UPDATE session_token SET redeemed_at = now()"
    " WHERE hash = %b AND redeemed_at IS NULL AND expires_at > now() RETURNING account"
)
UPSERT_ACCOUNT = (
    "INSERT INTO account (tenant, name, status, created_at) VALUES (%b, %b, 'active', now())"
    " ON CONFLICT (tenant, name) DO UPDATE SET status = account.status RETURNING id"
)
INSERT_DEVICE = (
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

SELECT_DEVICE = (
    "SELECT a.name, d.client_id FROM device d JOIN account a ON a.id = d.account"
    " WHERE d.sign_on = %b AND d.ended_at IS NULL AND d.fixed_expires_at > now() AND a.status = 'active'"
)

Headers = dict[bytes, bytes]


async def connect() -> psycopg.AsyncCursor[Any]:
    """Return a cursor on a new connection that commits each statement."""
    connection = await psycopg.AsyncConnection.connect(DATABASE, autocommit=True)
    connection.prepare_threshold = 0
    return connection.cursor(binary=True)


idle_cursors: asyncio.LifoQueue[psycopg.AsyncCursor[Any] | None] = asyncio.LifoQueue()
for _ in range(CONNECTIONS - 1):
    idle_cursors.put_nowait(None)


@asynccontextmanager
async def cursor() -> AsyncIterator[psycopg.AsyncCursor[Any]]:
    """Yield a cursor; wait until one is free."""
    one = await idle_cursors.get()
    try:
        one = one or await connect()
        yield one
    finally:
        idle_cursors.put_nowait(one)


class WriteBatcher:
    """Stores rows in batches. A batch has all rows that arrived while the one before was being stored."""

    def __init__(self) -> None:
        self.pending: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None
        self.cursor: psycopg.AsyncCursor[Any] | None = None

    async def submit(self, row: tuple[Any, ...]) -> None:
        """Return when the row is committed. Raises psycopg.Error."""
        loop = asyncio.get_running_loop()
        stored = loop.create_future()
        self.pending.append((row, stored))
        if self.task is None:
            self.task = loop.create_task(self._store())
        await stored

    async def _store(self) -> None:
        while self.pending:
            batch, self.pending = self.pending, []
            error = await self._execute([row for row, _ in batch])
            for _, stored in batch:
                if stored.done():  # the client has disconnected
                    continue
                if error is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(error)
        self.task = None

    async def _execute(self, rows: list[tuple[Any, ...]]) -> psycopg.Error | None:
        try:
            self.cursor = self.cursor or await connect()
            await self.cursor.execute(INSERT, [list(column) for column in zip(*rows, strict=True)])
        except psycopg.Error as error:
            return error
        return None


session_tokens = WriteBatcher()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def get_session_token(_headers: Headers, body: bytes) -> dict[str, Any]:
    """Verify the JWT of a head-end, and store a session token."""
    proof = json.loads(body)["parameters"][0]["value"]
    claims = jwt.decode(proof, SECRET, ["HS256"], audience="ags")
    token = secrets.token_hex(16)
    await session_tokens.submit((_hash(token), claims["OpfTenantId"], claims["OpfAccountId"]))
    return {"sessionToken": token}


async def sign_on(_headers: Headers, body: bytes) -> dict[str, Any]:
    """Redeem a session token, and register a device."""
    sent = json.loads(body)
    token_hash = _hash(sent["parameters"][0]["value"])
    client_id, sign_on = secrets.token_hex(16), secrets.token_hex(16)
    async with cursor() as cursor_, cursor_.connection.transaction():
        account = await _fetch(cursor_, REDEEM, token_hash)
        held = await _fetch(cursor_, UPSERT_ACCOUNT, TENANT, account[0])
        await cursor_.execute(
            INSERT_DEVICE, (held[0], client_id, sign_on, json.dumps(sent["deviceInformation"]))
        )
    now = time.time()
    return _token_response(account[0], client_id, sign_on, (0, now + REFRESH_TTL, now + FIXED_TTL))


async def refresh(headers: Headers, _body: bytes) -> dict[str, Any]:
    """Rotate a refresh token."""
    token = headers[b"authorization"].removeprefix(b"Bearer ")
    claims = jwt.decode(token, REFRESH_KEY, ["HS256"])
    sign_on, _, generation = claims["jti"].partition(".")
    async with cursor() as cursor_:
        found = await _fetch(cursor_, ROTATE, sign_on, int(generation))
    return _token_response(claims["accountId"], claims["deviceId"], sign_on, found)


async def introspect(headers: Headers, body: bytes) -> dict[str, Any]:
    """Return the claims of an access token."""
    pair = b64decode(headers[b"authorization"].removeprefix(b"Basic ")).decode()
    name, _, secret = pair.partition(":")
    if name != RESOURCE_SERVER or not hmac.compare_digest(RESOURCE_HASH, _hash(secret)):
        raise PermissionError
    token = parse_qs(body.decode())["token"][0]
    claims = jwt.decode(token, PUBLIC, ["ES256"], audience=TENANT)
    async with cursor() as cursor_:
        account, device = await _fetch(cursor_, SELECT_DEVICE, claims["sid"])
    copied = {name: claims[name] for name in ("typ", "ver", "sid", "jti", "iat", "exp", "iss", "aud")}
    identity = {"tenantId": TENANT, "accountId": account, "userId": account, "deviceId": device}
    active = {"active": True, "token_type": "bearer", "client_id": device, "sub": account}
    return {**copied, **identity, **active}


async def _fetch(cursor_: psycopg.AsyncCursor[Any], statement: str, *values: Any) -> Any:
    await cursor_.execute(statement, values)
    return await cursor_.fetchone()


def _token_response(
    account: str, client_id: str, sign_on: str, rotated: tuple[int, float, float]
) -> dict[str, Any]:
    now = int(time.time())
    generation, refresh_expires, fixed_expires = rotated
    identity = {"tenantId": TENANT, "accountId": account, "userId": account, "deviceId": client_id}
    access = {
        "typ": "DevAuthN",
        "ver": "1.0",
        **identity,
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
        **identity,
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


PATHS: dict[str, tuple[int, Callable[[Headers, bytes], Awaitable[dict[str, Any]]]]] = {
    "/ags/getSessionToken": (200, get_session_token),
    "/ags/signOnWithSessionToken": (201, sign_on),
    "/ias/v3/token/actions/refresh": (200, refresh),
    "/oauth/introspect": (200, introspect),
}


class Application:
    """An ASGI application without `lifespan`. The server of AGS passes whole bodies."""

    @staticmethod
    def body_limit(_path: str) -> int:
        """Return the largest body that the server accepts, in bytes."""
        return BODY_LIMIT

    async def start(self) -> None:
        """Do nothing: connections are opened when they are used."""

    async def stop(self) -> None:
        """Do nothing: the process exits."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Send the response to a request."""
        status, respond = PATHS[scope["path"]]
        body = (await receive())["body"]
        content = json.dumps(await respond(dict(scope["headers"]), body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Server(BaseApplication):  # type: ignore[misc]
    """The arbiter of gunicorn with the workers of AGS, on the address `bind`."""

    def __init__(self, bind: str, workers: int) -> None:
        self.bind, self.workers = bind, workers
        super().__init__()

    def load_config(self) -> None:
        """Set the options of `manage.py serve` that matter here."""
        for name, value in {
            "bind": [self.bind],
            "workers": self.workers,
            "worker_class": Worker,
            "loglevel": "error",
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm",  # noqa: S108 - no disk delays the heartbeat
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Application:
        """Return the application, in each worker."""
        return Application()

    def run(self) -> None:
        """Start and supervise the workers."""
        Arbiter(self).run()


if __name__ == "__main__":
    settings.configure(AGS_DRAIN_SECONDS=0)  # the only setting that the server reads
    Server(sys.argv[1], int(sys.argv[2])).run()
