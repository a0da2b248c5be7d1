"""What the pages of keys say about their use."""

import math
from datetime import datetime

from django.utils import timezone

from providers.claims import MAX_CLOCK_SKEW
from tenants.models import Key, KeyState
from tenants.services.key_use import DAY, LastUse, Usage, Use
from tenants.services.key_users import enabled_services, key_users
from tenants.times import format_utc

EARLY = 30
"""Seconds. Tokens that are all older were signed in advance, or by a clock that is behind."""


def describe_last_accepted(last: LastUse) -> str:
    return _describe_time(last.accepted_at, last)


def describe_last_refused(key: Key, last: LastUse) -> str:
    if key.state == KeyState.STAGED and not last.is_known:
        return "Never. Let the operator sign a token with it: AGS refuses it, and this page shows when."
    return _describe_time(last.refused_at, last)


def _describe_time(time: datetime | None, last: LastUse) -> str:
    if time is None:
        return "Not in the last two days" if last.is_known else "Never"
    minutes = max(0, int((timezone.now() - time).total_seconds() // 60))
    return f"{format_utc(time)}, {_plural(minutes, 'minute')} ago"


def describe_usage(key: Key, usage: Usage) -> str:
    """Return how often the key was used, and its share of the accepted tokens of the tenant."""
    if not usage.accepted and not usage.refused:
        return "Not used"
    share = f", {_percent(usage)} of those of {key.tenant_id}" if usage.accepted else ""
    refused = f"; {usage.refused:,} refused" if usage.refused else ""
    return f"{_plural(usage.accepted, 'token')} accepted{share}{refused}"


def describe_traffic_at_risk(key: Key, use: Use) -> str:
    """Return what fails without the key; an empty string if no token was accepted in the last hour."""
    usage, last = use.hour, use.last
    if key.state == KeyState.REVOKED or not usage.accepted or last.accepted_at is None:
        return ""
    return (
        f"{key.tenant_id} uses it: in the last hour, AGS accepted {_plural(usage.accepted, 'token')} that it "
        f"signed, {_percent(usage)} of all, the last one at {format_utc(last.accepted_at)}. Without the key, "
        "these requests are refused."
    )


def describe_token_ages(key: Key, usage: Usage) -> str:
    """Return the ages of the tokens, and what to do about the clock of their signer."""
    if usage.min_age is None or usage.max_age is None:
        return "No token with iat in the last hour"
    ages = f"{_seconds(usage.min_age)} to {_seconds(usage.max_age)}"
    ahead, tolerance = -usage.min_age, _find_tolerance(key)
    if ahead > DAY.total_seconds():
        return "An iat was more than a day in the future. It must be in seconds, not in milliseconds."
    if tolerance is not None and ahead > max(tolerance / 2, 1):
        sufficient = math.ceil(ahead / 5) * 10  # twice as much, in steps of 10
        is_possible = sufficient <= MAX_CLOCK_SKEW
        setting = f"Set clock_skew of the service to {sufficient}, or ask" if is_possible else "Ask"
        return (
            f"{ages}. The clock of the operator is up to {_seconds(ahead)} ahead of AGS, and {tolerance} "
            f"seconds are allowed. {setting} the operator to synchronize it."
        )
    if usage.min_age > EARLY:
        return (
            f"{ages}. No token was younger: the clock of the operator is behind AGS by up to "
            f"{_seconds(usage.min_age)}, or it signs tokens in advance."
        )
    return ages


def _find_tolerance(key: Key) -> int | None:
    """Return the smallest clock_skew of the enabled services that verify with such keys of the tenant."""
    rows = enabled_services(key.tenant_id).filter(key_users(key.kind))
    stored = rows.order_by().values_list("settings__clock_skew", flat=True).distinct()
    return min((skew for skew in stored[: MAX_CLOCK_SKEW + 1] if type(skew) is int), default=None)


def _percent(usage: Usage) -> str:
    share = 100 * usage.accepted / usage.total
    if share < 1:
        return "less than 1 %"
    return "more than 99 %" if 99 < share < 100 else f"{share:.0f} %"


def _seconds(number: float) -> str:
    return _plural(round(number), "second")


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
