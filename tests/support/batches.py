"""Requests that are executed in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from ags.database.batching import Batcher
from ags.sessions.models import SessionToken
from ags.sessions.services import account_choice, redeem, refresh, sign_on
from ags.sessions.tokens.opaque import token_hashes
from tenants.models import Tenant
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.database import database_url
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.sign_ons import REFRESH_PATH as REFRESH

REDEEM, SIGN_ON, CHOOSE = "/ags/signOnWithSessionToken", "/ags/signOn", "/ags/subsequentSignOn"

BATCHERS = {
    REDEEM: redeem._redeemer.redemptions,
    SIGN_ON: sign_on._sign_ons,
    CHOOSE: account_choice._redeemer.redemptions,
    REFRESH: refresh._rotations,
}

Answers = list[tuple[int, Any]]
Posted = asyncio.Task[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    body: Any
    headers: Mapping[str, str]


def redemption(head_end: HeadEnd, token: str, **members: Any) -> Request:
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "sessionToken", "value": token}], **device}
    return Request(REDEEM, body, head_end.headers())


def rotation(head_end: HeadEnd, token: str) -> Request:
    return Request(REFRESH, {}, head_end.headers(x_auth_service_id=None, authorization=f"Bearer {token}"))


async def post_together(requests: Sequence[Request]) -> list[Posted]:
    """Post requests to one path, and execute them as a batch once all are submitted."""
    (path,) = {request.path for request in requests}
    execute_together(BATCHERS[path], len(requests))
    return [
        asyncio.create_task(post_json(request.path, request.body, request.headers)) for request in requests
    ]


def execute_together(batcher: Batcher, number: int) -> asyncio.Task[None]:
    """Execute a batch once that number of rows is submitted."""

    async def execute() -> None:
        await wait_until_async(lambda: len(batcher._pending) == number, "a request does not submit a row")
        await batcher._run()

    batcher._task = asyncio.create_task(execute())
    return batcher._task


def run_batch(
    requests: Sequence[Request], during: Callable[[list[Posted]], Awaitable[None]] | None = None
) -> Answers:
    """Return the responses to a batch of requests. `during` is awaited before they complete."""
    answers: Answers = []

    async def test() -> None:
        async with open_application():
            posted = await post_together(requests)
            if during is not None:
                await during(posted)
            answers.extend([await task for task in posted if not task.cancelled()])

    run_in_event_loop(test())
    return answers


def get_statuses(answers: Answers) -> list[int]:
    return [status for status, _ in answers]


def is_redeemed(token: str) -> bool:
    return SessionToken.unscoped.filter(token_hash=token_hashes(token)[0], redeemed_at__isnull=False).exists()


def limit_devices(limit: int) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.device_limit = limit
    tenant.save()
    snapshot.invalidate("nagra")


# Other transactions


@contextmanager
def other_transaction() -> Iterator[OtherTransaction]:
    """Roll it back at the end."""
    with (
        psycopg.connect(database_url()) as pg,
        psycopg.connect(database_url(), autocommit=True) as watcher,
    ):
        yield OtherTransaction(pg, watcher)
        pg.rollback()


class OtherTransaction:
    """Another session of PostgreSQL with a transaction, and a third one that observes locks."""

    def __init__(self, pg: psycopg.Connection[Any], watcher: psycopg.Connection[Any]) -> None:
        self.pg, self._watcher = pg, watcher

    def execute(self, statement: str, *params: Any) -> list[Any]:
        done = self.pg.execute(statement, params)
        return [row[0] for row in done.fetchall()] if done.description else []

    def waiting(self) -> int:
        """Return the number of sessions that wait for a lock."""
        return self._count(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

    def rollbacks(self) -> int:
        """Return the number of transactions of all sessions that were rolled back."""
        return self._count("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")

    def _count(self, query: str) -> int:
        row = self._watcher.execute(query).fetchone()
        assert row is not None
        return int(row[0])
