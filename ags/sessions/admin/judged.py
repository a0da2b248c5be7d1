"""How what was issued stands, said of each row by the same rule that decides about tokens."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, CharField, F, QuerySet, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from ags.sessions import standing
from ags.sessions.models import Device, SessionToken

# Statements are put together from constants.
# ruff: noqa: S608, S611


def judged_session_tokens(rows: QuerySet[SessionToken]) -> QuerySet[Any]:
    """Add to each row its `state`: live, expired, redeemed, revoked, or what else is wrong behind it."""
    fault = RawSQL(
        f"(SELECT {standing.SESSION_TOKEN} FROM ags_sessions_sessiontoken st"
        f" CROSS JOIN {standing.OF_SESSION_TOKEN}"
        " WHERE st.id = ags_sessions_sessiontoken.id AND t.id = st.tenant_id)",
        (),
        CharField(),
    )
    return rows.annotate(fault=fault).annotate(
        state=Case(
            When(revoked_at__isnull=False, then=Value("revoked")),
            When(redeemed_at__isnull=False, then=Value("redeemed")),
            When(expires_at__lte=Now(), then=Value("expired")),
            When(fault__isnull=False, then=F("fault")),
            default=Value("live"),
            output_field=CharField(),
        )
    )


def judged_devices(rows: QuerySet[Device]) -> QuerySet[Any]:
    """Add to each row the `state` of its sign-on: live, expired, or why it is dead."""
    fault = RawSQL(
        f"(SELECT {standing.SIGN_ON} FROM ags_sessions_device d CROSS JOIN {standing.OF_SIGN_ON}"
        " WHERE d.id = ags_sessions_device.id AND t.id = d.tenant_id)",
        (),
        CharField(),
    )
    return rows.annotate(fault=fault).annotate(
        state=Case(
            When(fault__isnull=False, then=F("fault")),
            When(refresh_expires_at__lte=Now(), then=Value("expired")),
            default=Value("live"),
            output_field=CharField(),
        )
    )
