"""Rows for `manage.py purge`, and its output."""

from __future__ import annotations

from django.db import connection

from tenants.models import Service
from tests.support.clients import HeadEnd


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
