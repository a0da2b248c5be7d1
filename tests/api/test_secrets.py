"""Markers are pushed through every path; they turn up in no line of the log and in no answer."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from ags.operations.logs import JSONLines, ReadableLines
from ags.sessions.models import SessionToken
from providers.registry import strategies
from tests.api.test_refusals import database_away
from tests.conftest import HeadEnd

MARKER = "marker0815"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)

    def lines() -> str:
        forms: list[logging.Formatter] = [JSONLines(), ReadableLines()]
        return "\n".join(form.format(record) for record in caplog.records for form in forms)

    return lines


def test_no_parameter_token_account_or_jti_is_logged_or_answered(
    nagra: HeadEnd, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = nagra.token(OpfAccountId=f"account-{MARKER}", jti=f"jti-{MARKER}")
    answers = [
        nagra.present(good, authorization=f"Bearer {MARKER}", cookie=f"a={MARKER}"),
        nagra.present(good),
        nagra.present(nagra.token(OpfAccountId=f"{MARKER}\n")),
        nagra.present(nagra.token(OpfTenantId=MARKER)),
        nagra.present(nagra.token(typ=MARKER)),
        nagra.present(nagra.token(headers={"kid": MARKER})),
        nagra.present(MARKER),
        nagra.post({"parameters": [{"name": "OperatorAuthToken", "value": [MARKER]}]}),
        nagra.post('{"' + MARKER + '": 1, "' + MARKER + '": 1}'),
        nagra.post(MARKER, content_type=f"text/{MARKER}"),
        nagra.post(MARKER * 10_000),
        nagra.present(good, x_auth_service_id=MARKER * 20),
        nagra.client.get(f"/{MARKER}?a={MARKER}"),
        nagra.client.put(f"/ags/getSessionToken?{MARKER}"),
        nagra.client.get(f"/ags/servicediscovery?token={MARKER}", headers={"host": f"{MARKER}.example"}),
    ]
    with database_away():
        answers.append(nagra.present(nagra.token(OpfAccountId=MARKER)))

    def broken(*_: Any) -> None:
        raise RuntimeError(good)

    monkeypatch.setattr(strategies()["operator_token"], "verify", broken)
    answers.append(nagra.present(good))
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 403, 404, 405, 413, 415, 500, 503}
    assert MARKER not in logged()
    assert good not in logged()
    for answer in answers:
        assert MARKER not in answer.content.decode() + str(dict(answer.headers))


def test_the_session_token_and_the_secret_are_in_no_line_and_in_no_row(nagra: HeadEnd, logged: Any) -> None:
    token = nagra.present(nagra.token()).json()["sessionToken"]
    assert token not in logged()
    assert repr(nagra.secret) not in logged()
    (row,) = SessionToken.objects.for_tenant("nagra").values()
    assert token not in json.dumps(row, default=str)
    assert token.encode() not in bytes(row["token_hash"])


def test_each_request_leaves_one_line_that_says_who_what_and_why(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nagra.present(nagra.token(exp=1), x_correlation_id="call-1")
    (record,) = [record for record in caplog.records if record.name == "ags.request"]
    line = json.loads(JSONLines().format(record))
    assert line.pop("duration_ms") >= 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "correlation_id": "call-1",
        "method": "POST",
        "route": "/ags/getSessionToken",
        "tenant": "nagra",
        "service": "Customer Auth Service",
        "outcome": "refused",
        "reason": "token_expired",
        "status": 401,
    }
