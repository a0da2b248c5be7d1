"""Explanations of requests to a real server, as support staff get them with the correlation ID alone."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command

from ags.explanations.links import build_path
from ags.explanations.models import ExplanationLink
from ags.sessions.models import Event
from tests.support.clients import ClientApp
from tests.support.explained_refusals import (
    MARKER,
    ROWS,
    Caller,
    create_refused_operator,
)
from tests.support.explanation_pages import ADD, ExplanationPage, explain_on_page, find_events
from tests.support.live import ForwardingProxy, get_server, wait_until_served
from tests.support.server import ServerProcess
from tests.support.staff import person
from tests.support.waiting import wait_until

_numbers = itertools.count(1)


@pytest.fixture
def caller(transactional_db: None, servers: dict[str, ServerProcess]) -> Caller:
    providers = "providers.operator_token,providers.dummy,providers.signed_jwt"
    server = get_server(servers, "explain", AGS_PROVIDERS=providers, DEBUG="on", AGS_TRUSTED_PROXIES="1")
    number = next(_numbers)
    head_end = create_refused_operator(f"explained-{number}")
    wait_until_served(server, head_end)  # until then, the server refuses requests of no tenant
    return Caller(replace(head_end, client=ForwardingProxy(server, f"203.0.113.{number}")), "")


def wait_until_stored(correlation_id: str, number: int = 1) -> None:
    events = Event.unscoped.filter(correlation_id=correlation_id)
    wait_until(lambda: events.count() >= number, f"{correlation_id} is not stored")


def explain(*arguments: str) -> tuple[int, str]:
    """Return the exit status, and all output."""
    output = io.StringIO()
    try:
        call_command("explain", *arguments, stdout=output)
    except CommandError as error:
        return 1, output.getvalue() + str(error)
    return 0, output.getvalue()


def parse(text: str) -> tuple[str, str]:
    """Return the failed check and the side at fault."""
    (line,) = [line for line in text.splitlines() if line.startswith("Failed check: ")]
    check, _, side = line.removeprefix("Failed check: ").removesuffix(".").partition(". At fault: ")
    return check, side


def test_each_refusal_is_explained(caller: Caller, servers: dict[str, ServerProcess]) -> None:
    assert len(ROWS) >= 20
    statuses, wrong, wrong_pages, paths = {}, {}, {}, {}
    browser = person("support", caller.head_end.tenant_id)
    User.objects.get().user_permissions.add(Permission.objects.get(codename="all_tenants"))
    for number, (name, row) in enumerate(ROWS.items()):
        caller.id = f"refused-{number}"
        statuses[name] = row.send(caller).status_code
    assert statuses == {name: row.status for name, row in ROWS.items()}
    for number, (name, row) in enumerate(ROWS.items()):
        correlation_id = f"refused-{number}"
        wait_until_stored(correlation_id)
        status, text = explain(correlation_id)
        assert status == 0
        assert MARKER not in text, name
        remedy = text.partition("What to do: ")[2].partition("\n\n")[0]
        sentences = text.partition("\n\n")[2].partition("\n")[0]
        is_right = parse(text) == (row.check, row.side) and row.summary in sentences and row.remedy in remedy
        if not is_right:
            wrong[name] = text
        page = explain_on_page(browser, correlation_id)
        assert MARKER not in page.text, name
        (found,) = page.explanations
        shown = (found.fault["Failed check"], found.fault["At fault"])
        is_right = row.summary in found.cause and row.remedy in found.fault["What to do"]
        if not is_right or shown != (row.check, row.side):
            wrong_pages[name] = page.text
        events = find_events(page)
        assert (
            bool(events)
            == Event.unscoped.filter(correlation_id=correlation_id, tenant__isnull=False).exists()
        )
        for event in events:
            assert browser.post(ADD, {"event": event}).status_code == 200
            paths[name] = build_path(ExplanationLink.unscoped.get(event=event))
            opened = ExplanationPage(caller.head_end.client.get(paths[name]))
            assert [(each.cause, each.fault, each.checks) for each in opened.explanations] == [
                (found.cause, found.fault, found.checks)
            ]
            assert MARKER not in opened.text, name
    assert wrong == {}
    assert wrong_pages == {}
    assert len(paths) >= 20
    log = servers["explain"].log
    assert [name for name, path in paths.items() if path.partition(".")[2] in log] == []
    assert MARKER not in log
    assert MARKER not in json.dumps(
        list(Event.unscoped.filter(kind="explanation_opened").values()), default=str
    )
    assert Event.unscoped.filter(kind="explanation_opened").count() == len(paths)


def test_the_steps_before_a_refusal_have_passed(caller: Caller) -> None:
    caller.id = "steps"
    caller.present(exp=1, iat=1)
    wait_until_stored("steps")
    _, text = explain("steps", "--tenant", caller.head_end.tenant_id)
    table = text.split("\n\n")[2].splitlines()
    rows = [tuple(part.strip() for part in line.split("  ") if part.strip()) for line in table]
    assert rows == [
        ("passed", "limit of the client address"),
        ("passed", "form of the request"),
        ("passed", "tenant"),
        ("passed", "service"),
        ("passed", "parameters"),
        ("passed", "form of the token"),
        ("passed", "key (kid)"),
        ("passed", "algorithm"),
        ("passed", "state of the key"),
        ("passed", "signature"),
        ("passed", "payload of the token"),
        ("passed", "type of the token"),
        ("passed", "audience"),
        ("FAILED", "times of the token"),
        ("not reached", "other claims"),
        ("not reached", "replay (jti)"),
        ("not reached", "one account"),
        ("not reached", "limit of the account"),
    ]
    assert f"Key ID (kid)    {caller.head_end.kid}\n" in text
    assert "Client address  203.0.113." in text
    assert "allowed difference  30 seconds" in text
    status, text = explain("steps", "--tenant", "another")
    assert (status, "Nothing is stored about 'steps'" in text) == (1, True)


def test_what_happened_since_a_grant(caller: Caller) -> None:
    caller.id = "granted"
    session_token = caller.present().json()["sessionToken"]
    status, text = explain("granted")
    assert status == 0
    assert "AGS issued a session token.\nIt has not been redeemed, and is valid until 2" in text
    assert "FAILED" not in text
    caller.id = "redeemed"
    app = ClientApp(caller.head_end, tokens=caller.redeem(session_token).json())
    assert "It was redeemed at 2" in explain("granted")[1]
    assert "The device signed on.\nThe device is signed on until 2" in explain("redeemed")[1]
    app.sign_out(x_correlation_id="ended")
    text = explain("redeemed")[1]
    assert "The sign-on ended at 2" in text
    assert "(signed_out)" in text
    assert "Sign-on ended (signed_out)." in explain("ended")[1]
    for shown in (text, explain("granted")[1], explain("ended")[1]):
        assert MARKER not in shown
        assert session_token not in shown


def test_requests_with_the_same_correlation_id_are_listed_newest_first(caller: Caller) -> None:
    caller.id = "repeated"
    for number in range(25):
        caller.present_raw({"kid": f"key-{number}"})
    wait_until_stored("repeated", 25)
    _, text = explain("repeated")
    shown = [line.split()[-1] for line in text.splitlines() if line.startswith("Key ID (kid)")]
    assert shown == [f"key-{number}" for number in reversed(range(5, 25))]


def test_refusals_that_were_only_counted_are_mentioned(caller: Caller) -> None:
    tenant_id = caller.head_end.tenant_id
    for number in (7, 8):
        Event(tenant_id=tenant_id, kind=Event.Kind.OMITTED, details={"number": number}).save()
    Event(tenant_id="another", kind=Event.Kind.OMITTED, details={"number": 100}).save()
    status, text = explain("nothing", "--tenant", tenant_id)
    assert status == 1
    assert "15 were only counted" in text
    assert len(text.splitlines()) == 6
