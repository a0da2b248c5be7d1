"""An explanation of a request, without any secret, token or account ID."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ags.explanations.reasons import ISSUED_TOKEN_REASONS, REASONS, STEPS_OF_CLAIMS, Reason, Side
from ags.explanations.steps import CALLERS, ISSUED_TOKEN_ROUTES, list_steps
from providers.contract import Step, Strategy
from tenants.times import format_utc


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "FAILED"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Request:
    """What is stored about a request that was granted or refused.

    `event_id`: its ID in the audit trail, empty if the request is of no tenant.
    """

    correlation_id: str
    at: datetime
    tenant: str
    service: str
    route: str
    method: str = ""
    kid: str = ""
    client_address: str = ""
    response: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was checked for a request, and its result.

    `summary` is one sentence. `reason`, `side` and `remedy` are those of a refusal; `side` is None if the
    request was granted. `facts` are names and values for display. `since` are sentences about what has
    happened since, or is configured now.
    """

    request: Request
    summary: str
    steps: tuple[tuple[Step, Outcome], ...] = ()
    reason: str = ""
    side: Side | None = None
    remedy: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    since: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        request = self.request
        return f"{format_utc(request.at)} {request.method} {request.route}".strip()

    @property
    def head(self) -> list[tuple[str, str]]:
        """Labels and values of the request, without those that are not known."""
        request = self.request
        rows = [
            ("Correlation ID", request.correlation_id),
            ("Time", format_utc(request.at)),
            ("Request", f"{request.method} {request.route}".strip()),
            ("Tenant", request.tenant),
            ("Service", request.service),
            ("Key ID (kid)", request.kid),
            ("Client address", request.client_address),
            ("Response", request.response),
            ("Reason", self.reason),
        ]
        return [(label, value) for label, value in rows if value]

    @property
    def fault(self) -> list[tuple[str, str]]:
        """Labels and values: what has failed, who can correct it, and how. Empty if nothing was refused."""
        if self.side is None:
            return []
        failed = next((step.value for step, outcome in self.steps if outcome is Outcome.FAILED), "")
        return [("Failed check", failed), ("At fault", self.side.value), ("What to do", self.remedy)]

    @property
    def is_linkable(self) -> bool:
        """Whether a link can explain it to another company."""
        return bool(self.request.event_id and self.steps)

    @property
    def checks(self) -> list[tuple[str, str]]:
        """Outcomes and checks, in the order in which they are made."""
        return [(outcome.value, step.value) for step, outcome in self.steps]


def explain_refusal(
    request: Request,
    reason: str,
    facts: Mapping[str, Any],
    *,
    strategy: Strategy | None,
    is_failure: bool = False,
) -> Explanation:
    """`reason`: the code in the log. `is_failure`: the status was a 5xx."""
    row = _find_reason(reason, request.route, is_failure)
    values = {name: text for name, value in facts.items() if (text := _format(name, value))}
    failed = row.step
    if reason in {"claim_missing", "claim_invalid"}:
        failed = STEPS_OF_CLAIMS.get(str(facts.get("name")), failed)
    known = {"kid": request.kid, "time": values.get(str(facts.get("name")), "")}
    return Explanation(
        request,
        _describe(row, values | {name: value for name, value in known.items() if value}),
        tuple(_outcomes(list_steps(request.route, strategy, failed), failed)),
        reason,
        CALLERS.get(request.route, Side.CALLER) if row.side is Side.CALLER else row.side,
        row.remedy,
        tuple((_LABELS.get(name, name), value) for name, value in values.items()),
    )


def explain_grant(
    request: Request, summary: str, *, strategy: Strategy | None, since: Iterable[str] = ()
) -> Explanation:
    steps = list_steps(request.route, strategy)
    return Explanation(request, summary, tuple((step, Outcome.PASSED) for step in steps), since=tuple(since))


def _find_reason(reason: str, route: str, is_failure: bool) -> Reason:
    if route in ISSUED_TOKEN_ROUTES and reason in ISSUED_TOKEN_REASONS:
        return ISSUED_TOKEN_REASONS[reason]
    # All other reasons are types of exceptions.
    return REASONS.get(reason, REASONS["internal_error" if is_failure else "request_malformed"])


def _describe(row: Reason, values: Mapping[str, str]) -> str:
    for detail in row.details:
        with contextlib.suppress(KeyError):
            return detail.format_map(values)
    return row.refused


def _outcomes(steps: Iterable[Step], failed: Step) -> Iterable[tuple[Step, Outcome]]:
    outcome = Outcome.PASSED
    for step in steps:
        if step is failed:
            yield step, Outcome.FAILED
            outcome = Outcome.NOT_REACHED
        else:
            yield step, outcome


_DAY = 86_400  # seconds


def _format_clock(seconds: int) -> str:
    return f"{_format_seconds(abs(seconds))} {'after' if seconds > 0 else 'before'} the clock of AGS"


def _format_seconds(seconds: int) -> str:
    days = f" ({seconds // _DAY:,} days)" if seconds >= 2 * _DAY else ""
    return "1 second" if seconds == 1 else f"{seconds:,} seconds{days}"


_FORMATS: Mapping[str, Callable[[int], str]] = {
    **dict.fromkeys(("exp", "nbf", "iat", "not_before", "not_after"), _format_clock),
    **dict.fromkeys(("skew", "max_lifetime", "max_age", "retry_after"), _format_seconds),
}

_LABELS = {
    "name": "claim or header",
    "alg": "algorithm of the token",
    "key_alg": "algorithm of the key",
    "members": "members of the header",
    "exp": "exp of the token",
    "nbf": "nbf of the token",
    "iat": "iat of the token",
    "not_before": "Not before of the key",
    "not_after": "Not after of the key",
    "skew": "allowed difference",
    "max_lifetime": "longest lifetime",
    "max_age": "longest age",
    "audience": "aud of the token",
    "expected": "required value",
    "type": "type of the value",
    "declared": "declared parameters",
    "retry_after": "time to wait",
}
"""Names of facts for display; all others are displayed as they are."""


def _format(name: str, value: Any) -> str:
    """Return an empty string if there is nothing to display."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name in _FORMATS and type(value) is int:
        return _FORMATS[name](value)
    return "" if value is None else str(value)
