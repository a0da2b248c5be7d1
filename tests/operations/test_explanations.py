"""The table of reasons, and explanations of rows that no release of AGS has written."""

from __future__ import annotations

import io
from string import Formatter
from typing import Any

import pytest
from django.core.management import call_command

from ags.explanations.explanation import Outcome
from ags.explanations.lookup import explain_request
from ags.explanations.reasons import ISSUED_TOKEN_REASONS, REASONS, Reason, Side
from ags.explanations.steps import CALLERS, ROUTES, list_steps
from ags.sessions.models import Event
from providers.contract import Step
from providers.registry import strategies
from tests.support.clients import SERVICE, HeadEnd

ROWS = [*REASONS.items(), *ISSUED_TOKEN_REASONS.items()]
FACTS = {
    "kid", "time", "name", "problem", "members", "alg", "key_alg", "not_before", "not_after", "exp", "iat",
    "skew", "max_age", "max_lifetime", "audience", "expected", "type", "declared", "parameter", "retry_after",
}  # fmt: skip


@pytest.mark.parametrize(("code", "row"), ROWS, ids=[code for code, _ in ROWS])
def test_a_row_has_whole_sentences_and_known_facts(code: str, row: Reason) -> None:
    for sentence in (row.refused, row.remedy, *row.details):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    assert {name for text in row.details for _, name, _, _ in Formatter().parse(text) if name} <= FACTS
    assert "{" not in row.refused + row.remedy.replace('{"name": "…", "value": "…"}', "")


def test_every_step_is_made_somewhere() -> None:
    of_strategies = {step for strategy in strategies().values() for step in strategy.steps}
    made = of_strategies | {step for steps in ROUTES.values() for step in steps}
    assert made | {Step.STAFF, Step.AVAILABILITY} == set(Step)


@pytest.mark.parametrize("route", [*ROUTES, "/admin/", ""])
@pytest.mark.parametrize("slug", [*sorted(strategies()), ""])
def test_the_failed_step_is_among_the_steps(route: str, slug: str) -> None:
    for row in (*REASONS.values(), *ISSUED_TOKEN_REASONS.values()):
        steps = list_steps(route, strategies().get(slug), row.step)
        assert row.step in steps
        assert len({*steps}) == len(steps)


def store(nagra: HeadEnd, reason: str, facts: Any, **columns: Any) -> None:
    details = {"method": "POST", "route": "/ags/getSessionToken", "status": 401, "facts": facts}
    values = {"tenant_id": nagra.tenant_id, "kind": "refused", "service": SERVICE, **columns}
    Event(correlation_id="c", reason=reason, details=details, **values).save()


STRANGE: dict[str, Any] = {
    "none": {},
    "of other types": {
        "exp": "text",
        "skew": [1, {"a": 2}],
        "name": 5,
        "iat": {"a": 1},
        "x": True,
        "y": None,
    },
    "placeholders": {"name": "{kid}", "problem": "{0} {x.__class__}", "exp": -1, "skew": 1},
}


@pytest.mark.parametrize("facts", STRANGE.values(), ids=STRANGE)
def test_strange_facts_and_reasons_are_explained(nagra: HeadEnd, facts: Any) -> None:
    for reason in (*REASONS, "ZeroDivisionError", ""):
        Event.unscoped.all().delete()
        store(nagra, reason, facts)
        (explanation,) = explain_request("c", ["nagra"])
        assert explanation.remedy
        assert [outcome for _, outcome in explanation.steps].count(Outcome.FAILED) == 1
    call_command("explain", "c", stdout=io.StringIO())


def test_an_event_without_details_is_explained(nagra: HeadEnd) -> None:
    Event(tenant_id="nagra", kind="failed", correlation_id="c", reason="KeyError").save()
    (explanation,) = explain_request("c", None)
    assert explanation.side is Side.AGS
    assert explanation.summary == "A defect in AGS or in a provider."


def test_a_reader_sees_only_their_tenants(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    store(nagra, "key_unknown", {})
    store(nagra, "replayed", {}, tenant_id=None)
    assert nagra.present(nagra.token(), x_correlation_id="c").status_code == 200
    assert explain_request("c", ["sunrise"]) == []
    assert explain_request("c", []) == []
    assert len(explain_request("c", ["nagra", "sunrise"])) == 2
    assert len(explain_request("c", None)) == 3
    Event.unscoped.filter(tenant=None).update(details={"tenant": "nagra"})
    assert len(explain_request("c", ["nagra"])) == 3
    assert explain_request("c", ["sunrise"]) == []


def test_the_side_of_a_caller_depends_on_the_endpoint(nagra: HeadEnd) -> None:
    store(nagra, "token_expired", {})
    Event.unscoped.update(details={"route": "/ias/v3/token/actions/refresh"})
    (explanation,) = explain_request("c", ["nagra"])
    assert explanation.side is Side.CLIENT_APP
    assert explanation.remedy == "Get a new session token, or sign on again."
    assert set(CALLERS) <= set(ROUTES)
