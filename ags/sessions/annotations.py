"""The state of session tokens and sign-ons as a column, by the definition of `sql.validity`."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Case, CharField, F, QuerySet, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from ags.sessions.models import Device, SessionToken
from ags.sessions.sql import validity

# Statements are built from constants.
# ruff: noqa: S608, S611

_IF_INVALID = When(invalid_reason__isnull=False, then=F("invalid_reason"))


def with_session_token_state(rows: QuerySet[SessionToken]) -> QuerySet[Any]:
    """Annotate `state`: live, expired, redeemed, revoked, or the reason why the token is invalid."""
    cases = (
        When(revoked_at__isnull=False, then=Value("revoked")),
        When(redeemed_at__isnull=False, then=Value("redeemed")),
        When(expires_at__lte=Now(), then=Value("expired")),
        _IF_INVALID,
    )
    reason, joins = validity.SESSION_TOKEN_INVALID_REASON, validity.SESSION_TOKEN_JOINS
    return _with_state(rows, cases, reason, "st", joins)


def with_device_state(rows: QuerySet[Device]) -> QuerySet[Any]:
    """Annotate `state`, of the sign-on: live, expired, or the reason why it is invalid."""
    cases = (_IF_INVALID, When(refresh_expires_at__lte=Now(), then=Value("expired")))
    return _with_state(rows, cases, validity.SIGN_ON_INVALID_REASON, "d", validity.SIGN_ON_JOINS)


def _with_state(
    rows: QuerySet[Any], cases: Iterable[When], reason: str, alias: str, joins: str
) -> QuerySet[Any]:
    table = rows.model._meta.db_table
    invalid_reason = RawSQL(
        f"(SELECT {reason} FROM {table} {alias} CROSS JOIN {joins}"
        f" WHERE {alias}.id = {table}.id AND t.id = {alias}.tenant_id)",
        (),
        CharField(),
    )
    state = Case(*cases, default=Value("live"), output_field=CharField())
    annotated: QuerySet[Any] = rows.annotate(invalid_reason=invalid_reason).annotate(state=state)
    return annotated
