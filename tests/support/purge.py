"""Rows for `manage.py purge`, and its output."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from django.core.management import call_command
from django.db import connection
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from ags.sessions.models import SessionToken
from tenants.models import Service
from tests.support.clients import HeadEnd


def run_purge(*options: str) -> str:
    out = io.StringIO()
    call_command("purge", *options, stdout=out)
    return out.getvalue()


def time_before(**time: int) -> CombinedExpression:
    """Return a time by the database's clock."""
    return Now() - timedelta(**time)


def add_session_tokens(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store session tokens that could be deleted for that many seconds, or later if it is negative."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    time = datetime.now(UTC) - timedelta(seconds=seconds)
    first = SessionToken.unscoped.count()
    SessionToken.unscoped.bulk_create(
        [
            SessionToken(
                tenant_id=head_end.tenant_id,
                service=service,
                token_hash=index.to_bytes(32, "big"),
                account_id="x",
                correlation_id="x",
                expires_at=time,
                dead_after=time + timedelta(microseconds=index),
            )
            for index in range(first, first + number)
        ]
    )


def add_expired_rows(head_end: HeadEnd, number: int) -> None:
    """Store session tokens that may be deleted."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO ags_sessions_sessiontoken
                   (tenant_id, service_id, token_hash, account_id, correlation_id,
                    created_at, expires_at, dead_after)
            SELECT %s, %s, decode(md5(n::text) || md5(n::text), 'hex'), 'expired', 'expired',
                   now() - interval '2 hours', now() - interval '1 hour', now() - interval '1 hour'
              FROM generate_series(1, %s) n
            """,
            [head_end.tenant_id, service.pk, number],
        )


def purge_output(
    tokens: int = 0,
    choices: int = 0,
    access: int = 0,
    devices: int = 0,
    events: int = 0,
    logins: int = 0,
    states: int = 0,
    sessions: int = 0,
    guards: int = 0,
) -> str:
    """Return the output of the command."""
    return (
        f"{tokens} session tokens, {choices} choices of an account, {access} revoked access tokens, "
        f"{devices} deleted devices, {events} security events, {logins} failed logins, "
        f"{states} states of documents, {sessions} sessions of staff, "
        f"{guards} guards without end deleted\n"
    )
