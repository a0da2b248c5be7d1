"""Rows for `manage.py purge`, and its output."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from django.core.management import call_command
from django.db import connection
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from ags.sessions.models import Event, SessionToken
from tenants.models import Service
from tests.support.clients import HeadEnd

RETENTION = timedelta(days=30)
"""How long events of the operators of the tests, and of no tenant, are kept."""

PURGE_OFTEN = {"DJANGO_SETTINGS_MODULE": "tests.live.purge_settings", "AGS_PURGE": "on"}
"""The variables of a server that purges by itself, and more often."""


def run_purge(*options: str) -> str:
    out = io.StringIO()
    call_command("purge", *options, stdout=out)
    return out.getvalue()


def time_before(**time: int) -> CombinedExpression:
    """Return a time by the database's clock."""
    return Now() - timedelta(**time)


def add_session_tokens(head_end: HeadEnd, number: int, seconds: int) -> None:
    """Store expired session tokens whose retention ended that many seconds ago, or later if negative."""
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    time = datetime.now(UTC) - RETENTION - timedelta(seconds=seconds)
    first = SessionToken.unscoped.count()
    SessionToken.unscoped.bulk_create(
        [
            SessionToken(
                tenant_id=head_end.tenant_id,
                service=service,
                token_hash=index.to_bytes(32, "big"),
                account_id="x",
                correlation_id="x",
                created_at=time + timedelta(microseconds=index),
                expires_at=time,
                dead_after=time,
            )
            for index in range(first, first + number)
        ]
    )


def add_events(tenant_id: str | None, number: int, seconds: int, retention: timedelta = RETENTION) -> None:
    """Store events of the audit trail whose retention ended that many seconds ago."""
    time = datetime.now(UTC) - retention - timedelta(seconds=seconds)
    Event.unscoped.bulk_create(
        [
            Event(
                tenant_id=tenant_id,
                kind=Event.Kind.REFUSED,
                created_at=time + timedelta(microseconds=index),
                correlation_id="x",
            )
            for index in range(number)
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
                   now() - interval '31 days', now() - interval '30 days', now() - interval '30 days'
              FROM generate_series(1, %s) n
            """,
            [head_end.tenant_id, service.pk, number],
        )


def purge_output(
    tokens: int = 0,
    guards: int = 0,
    events: int = 0,
    choices: int = 0,
    access: int = 0,
    devices: int = 0,
    security_events: int = 0,
    logins: int = 0,
    states: int = 0,
    uses: int = 0,
    links: int = 0,
    sessions: int = 0,
) -> str:
    """Return the output of the command. Requires a tenant."""
    return (
        f"{tokens} session tokens, {guards} guards without end, {events} events, "
        f"{choices} choices of an account, {access} revoked access tokens, {devices} deleted devices, "
        f"{security_events} security events, {logins} failed logins, {states} states of documents, "
        f"{uses} uses of keys, {links} explanation links, {sessions} sessions of staff deleted\n"
    )
