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
    invalid_reason = RawSQL(
        f"(SELECT {validity.SESSION_TOKEN_INVALID_REASON} FROM ags_sessions_sessiontoken st"
        f" CROSS JOIN {validity.SESSION_TOKEN_JOINS}"
        " WHERE st.id = ags_sessions_sessiontoken.id AND t.id = st.tenant_id)",
        (),
        CharField(),
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
    invalid_reason = RawSQL(
        f"(SELECT {validity.SIGN_ON_INVALID_REASON} FROM ags_sessions_device d"
        f" CROSS JOIN {validity.SIGN_ON_JOINS}"
        " WHERE d.id = ags_sessions_device.id AND t.id = d.tenant_id)",
        (),
        CharField(),
    )
    return rows.annotate(invalid_reason=invalid_reason).annotate(
        state=Case(
            When(invalid_reason__isnull=False, then=F("invalid_reason")),
            When(refresh_expires_at__lte=Now(), then=Value("expired")),
            default=Value("live"),
            output_field=CharField(),
        )
    )
