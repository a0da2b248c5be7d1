"""The state of session tokens and sign-ons as a column, by the definition of `sql.validity`."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, CharField, F, QuerySet, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from ags.sessions.models import Device, SessionToken
from ags.sessions.sql import validity

# Statements are built from constants.
# ruff: noqa: S608, S611


def with_session_token_state(rows: QuerySet[SessionToken]) -> QuerySet[Any]:
    """Annotate `state`: live, expired, redeemed, revoked, or the reason why the token is invalid."""
    invalid_reason = _invalid_reason(
        rows, "st", validity.SESSION_TOKEN_INVALID_REASON, validity.SESSION_TOKEN_JOINS
    )
    return rows.annotate(invalid_reason=invalid_reason).annotate(
        state=Case(
            When(revoked_at__isnull=False, then=Value("revoked")),
            When(redeemed_at__isnull=False, then=Value("redeemed")),
            When(expires_at__lte=Now(), then=Value("expired")),
            When(invalid_reason__isnull=False, then=F("invalid_reason")),
            default=Value("live"),
            output_field=CharField(),
        )
    )


def with_device_state(rows: QuerySet[Device]) -> QuerySet[Any]:
    """Annotate `state`, of the sign-on: live, expired, or the reason why it is invalid."""
    invalid_reason = _invalid_reason(rows, "d", validity.SIGN_ON_INVALID_REASON, validity.SIGN_ON_JOINS)
    return rows.annotate(invalid_reason=invalid_reason).annotate(
        state=Case(
            When(invalid_reason__isnull=False, then=F("invalid_reason")),
            When(refresh_expires_at__lte=Now(), then=Value("expired")),
            default=Value("live"),
            output_field=CharField(),
        )
    )


def _invalid_reason(rows: QuerySet[Any], alias: str, reason: str, joins: str) -> RawSQL:
    """Return the expression of `validity`, for each row of the queryset."""
    table = rows.model._meta.db_table
    return RawSQL(
        f"(SELECT {reason} FROM {table} {alias} CROSS JOIN {joins}"
        f" WHERE {alias}.id = {table}.id AND t.id = {alias}.tenant_id)",
        (),
        CharField(),
    )
