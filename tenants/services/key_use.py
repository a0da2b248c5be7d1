"""How the keys of a tenant were used lately, for staff."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max, Min, Q, Sum
from django.db.models.functions import Now

from tenants.models import Key, KeyUse

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

PERIOD = timedelta(minutes=10)
"""Of a row."""

MAX_ROWS = 5000
"""Periods that are read, the newest: those of 34 keys in a day. With more keys, a day is cut short."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The requests with a key within a time: see `KeyUse`. `total`: those accepted with all keys."""

    accepted: int
    refused: int
    total: int
    min_age: float | None
    max_age: float | None


@dataclass(frozen=True, slots=True)
class LastUse:
    """The latest times at which a token was accepted and refused. `is_known`: whether there was any, ever."""

    accepted_at: datetime | None
    refused_at: datetime | None
    is_known: bool


@dataclass(frozen=True, slots=True)
class Use:
    """The use of a key as its page shows it."""

    last: LastUse
    hour: Usage
    day: Usage


def get_use(key: Key) -> Use:
    return Use(_get_last_use(key), _get_usage(key, HOUR), _get_usage(key, DAY))


def _get_usage(key: Key, within: timedelta) -> Usage:
    """Return the usage within that time, and up to one period more."""
    own = Q(key=key)
    rows = KeyUse.objects.for_tenant(key.tenant_id).filter(began_at__gt=Now() - within - PERIOD)
    # `total` first: after it, `accepted` is no longer the column.
    return Usage(
        **rows.order_by("-began_at")[:MAX_ROWS].aggregate(
            total=Sum("accepted", default=0),
            accepted=Sum("accepted", filter=own, default=0),
            refused=Sum("refused", filter=own, default=0),
            min_age=Min("min_age", filter=own),
            max_age=Max("max_age", filter=own),
        )
    )


def _get_last_use(key: Key) -> LastUse:
    """Return the times of the stored periods, at least of the last two days."""
    rows = KeyUse.objects.for_tenant(key.tenant_id).filter(key=key).order_by("-began_at")
    times = list(rows.values_list("accepted_at", "refused_at")[:MAX_ROWS])
    accepted = [accepted_at for accepted_at, _ in times if accepted_at]
    refused = [refused_at for _, refused_at in times if refused_at]
    return LastUse(max(accepted, default=None), max(refused, default=None), bool(times))
