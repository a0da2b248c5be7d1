"""The provider `radius`, with a real FreeRADIUS and with fake servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from providers.contract import (
    FailureReason,
    Identity,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import strategies
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.markers import skip_unless_installed
from tests.support.radius import (
    RING,
    UNKNOWN,
    build_packet,
    cleaned,
    fake_radius_server,
    get_parameters,
    verify,
)
from tests.support.upstream.deadlines import SHORT
from tests.support.upstream.freeradius import PASSWORD, FreeRADIUS, freeradius, settings_at

pytestmark = skip_unless_installed(
    programs={"freeradius": "apt-get install freeradius"},
    modules={"pyrad": "pip install --require-hashes -r requirements/radius.txt"},
)
LINE = "olt-7/1/2:304"
LINE_PASSWORD = "a word for all lines"
LINE_SECRET = "a secret of the head-end"
LINES = {"mode": "line", "line_secret": LINE_SECRET, "line_password": LINE_PASSWORD}
LONGEST_PASSWORD = "x" * 128

USERS = f"""
alice Cleartext-Password := "{PASSWORD}"
  User-Name = "A-1", Class = "A-2", Chargeable-User-Identity = "A-3"
twice Cleartext-Password := "{PASSWORD}"
  Class = "A-1", Class += "A-2"
bytes Cleartext-Password := "{PASSWORD}"
  Class = 0xfffe
control Cleartext-Password := "{PASSWORD}"
  Class = 0x410a31
long Cleartext-Password := "{LONGEST_PASSWORD}"
ünï Cleartext-Password := "{PASSWORD}"
{LINE} Cleartext-Password := "{LINE_PASSWORD}"
  Class = "A-9"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[FreeRADIUS]:
    with freeradius(USERS) as running:
        yield running


# username, password, settings that differ, account
ACCEPTED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "by the username as sent": ("alice", PASSWORD, {}, "alice"),
    "by the User-Name of the response": ("alice", PASSWORD, {"account_attribute": "USER_NAME"}, "A-1"),
    "by its Class": ("alice", PASSWORD, {"account_attribute": "CLASS"}, "A-2"),
    "by its Chargeable-User-Identity": (
        "alice",
        PASSWORD,
        {"account_attribute": "CHARGEABLE_USER_IDENTITY"},
        "A-3",
    ),
    "with the longest password": ("long", LONGEST_PASSWORD, {}, "long"),
    "of any script": ("ünï", PASSWORD, {}, "ünï"),
    "by the name of the server": ("alice", PASSWORD, {"host": "localhost"}, "alice"),
    "a line": (LINE, LINE_SECRET, LINES, LINE),
    "a line, by its Class": (
        LINE,
        LINE_SECRET,
        {**LINES, "account_attribute": "CLASS"},
        "A-9",
    ),
}


@pytest.mark.parametrize(("username", "password", "settings", "account"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(
    server: FreeRADIUS, username: str, password: str, settings: dict[str, Any], account: str
) -> None:
    assert verify(username, password, server.settings(**settings)) == Identity(account)


INVALID = FailureReason.IDENTITY_INVALID
CLASS = {"account_attribute": "CLASS"}
REJECTED: dict[str, tuple[str, str, dict[str, Any], FailureReason]] = {
    "a wrong password": ("alice", "wrong", {}, UNKNOWN),
    "an unknown user": ("nobody", PASSWORD, {}, UNKNOWN),
    "a line, as if it were a subscriber": (LINE, LINE_SECRET, {}, UNKNOWN),
    "a line, without the secret of the head-end": (LINE, "wrong", LINES, UNKNOWN),
    "a line, with the password of the lines": (LINE, LINE_PASSWORD, LINES, UNKNOWN),
    "an unknown line": ("olt-7/1/2:305", LINE_SECRET, LINES, UNKNOWN),
    "no such attribute": ("long", LONGEST_PASSWORD, CLASS, INVALID),
    "two attributes": ("twice", PASSWORD, CLASS, FailureReason.ACCOUNT_AMBIGUOUS),
    "an account that is not UTF-8": ("bytes", PASSWORD, CLASS, INVALID),
    "an account with a line break": ("control", PASSWORD, CLASS, INVALID),
}


@pytest.mark.parametrize(("username", "password", "settings", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejects(
    server: FreeRADIUS, username: str, password: str, settings: dict[str, Any], reason: FailureReason
) -> None:
    with pytest.raises(VerificationFailed) as raised:
        verify(username, password, server.settings(**settings))
    assert raised.value.reason is reason


UNSENDABLE = {
    "no username": ("", PASSWORD),
    "no password": ("alice", ""),
    "a password of 129 characters": ("alice", "x" * 129),
    "a password of 130 bytes": ("alice", "ü" * 65),
    "a password that ends in NUL": ("alice", f"{PASSWORD}\0"),
    "a password with a lone surrogate": ("alice", "\ud800"),
    "a username of 254 bytes": ("ü" * 127, PASSWORD),
    "a username with a line break": ("alice\n", PASSWORD),
    "a username with a lone surrogate": ("\ud800", PASSWORD),
}


@pytest.mark.parametrize(("username", "password"), UNSENDABLE.values(), ids=UNSENDABLE)
def test_unsendable_credentials_are_rejected_without_a_request(username: str, password: str) -> None:
    with fake_radius_server(lambda request: []) as (settings, requests):
        with pytest.raises(VerificationFailed) as raised:
            verify(username, password, settings)
        assert raised.value.reason is UNKNOWN
        assert not requests


def test_a_wrong_shared_secret_gets_no_response(server: FreeRADIUS) -> None:
    from providers.radius.exchange import access_request, exchange

    stranger = cleaned(server.settings(shared_secret="another secret, long enough"), SHORT)
    # Not through the strategy, whose own time limit could expire first.
    with pytest.raises(UpstreamUnavailable, match="no response") as raised:
        exchange(access_request("alice", PASSWORD, stranger), stranger)
    assert raised.value.failure is UpstreamFailure.TIMEOUT


BAD_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "no host": ("host", {"host": ""}),
    "a short secret": ("shared_secret", {"shared_secret": "x" * 15}),
    "no secret": ("shared_secret", {"shared_secret": ""}),
    "no attempt": ("attempts", {"attempts": 0}),
    "four attempts": ("attempts", {"attempts": 4}),
    "an identifier with a space": ("nas_identifier", {"nas_identifier": "a b"}),
    "an attribute of no account": ("account_attribute", {"account_attribute": "REPLY_MESSAGE"}),
    "lines without a secret": ("line_secret", {**LINES, "line_secret": ""}),
    "lines with a short secret": ("line_secret", {**LINES, "line_secret": "x" * 15}),
    "lines without a password": ("line_password", {**LINES, "line_password": ""}),
}


@pytest.mark.parametrize(("field", "changes"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_invalid_settings_are_rejected(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        cleaned(settings_at(1812, **changes))
    assert all(message.startswith(f"{field}: ") for message in raised.value.messages), raised.value.messages


def test_check_detects_a_server_that_accepts_everybody() -> None:
    with fake_radius_server(lambda request: [build_packet(request)]) as (settings, _):
        (found,) = strategies()["radius"].check(cleaned(settings), RING)
        assert not found.passed
        assert "does not reject" in found.message


def offer(server: FreeRADIUS, name: str = "Lines", **changes: Any) -> None:
    Service(
        tenant_id="nagra",
        name=name,
        strategy="radius",
        display_name="x",
        enabled=True,
        settings=server.settings(**changes),
    ).save()


def test_a_line_is_exchanged_for_a_session_token(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **LINES)
    answer = nagra.post(get_parameters(LINE, LINE_SECRET), x_auth_service_id="Lines")
    assert answer.status_code == 200
    body = {
        "parameters": [{"name": "sessionToken", "value": answer.json()["sessionToken"]}],
        "deviceInformation": {"deviceType": "STB"},
    }
    signed_on = ClientApp(nagra).call("/ags/signOnWithSessionToken", body, x_auth_service_id="Lines")
    assert (signed_on.status_code, signed_on.json()["accountId"]) == (201, LINE)


def test_only_passwords_of_subscribers_are_limited(server: FreeRADIUS, nagra: HeadEnd) -> None:
    """The ID of a line is not secret: otherwise anybody could use up the wrong passwords of a line."""

    def request(service: str, username: str, password: str) -> int:
        response = nagra.post(get_parameters(username, password), x_auth_service_id=service)
        status: int = response.status_code
        return status

    offer(server, **LINES, max_password_failures=1)
    statuses = [request("Lines", LINE, password) for password in ("wrong", "wrong", LINE_SECRET)]
    assert statuses == [401, 401, 200]
    offer(server, name="Passwords", max_password_failures=1)
    snapshot.invalidate("nagra")
    assert [request("Passwords", "alice", password) for password in ("wrong", PASSWORD)] == [401, 429]


def test_two_account_attributes_are_ambiguous(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **CLASS)
    answer = nagra.post(get_parameters("twice", PASSWORD), x_auth_service_id="Lines")
    assert (answer.status_code, answer.json()["reason"]) == (403, "account_ambiguous")


def test_a_wrong_password_and_an_unknown_user_get_the_same_response(
    server: FreeRADIUS, nagra: HeadEnd
) -> None:
    offer(server)
    responses = []
    for username, password in (("alice", "wrong"), ("nobody", PASSWORD), ("alice", "")):
        answer = nagra.post(
            get_parameters(username, password), x_auth_service_id="Lines", x_correlation_id="c"
        )
        responses.append((answer.status_code, answer.content, sorted(answer.headers.items())))
    assert responses[0][0] == 401
    assert responses[1:] == responses[:1] * 2


def test_check_reports_success(
    server: FreeRADIUS, nagra: HeadEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(server)
    call_command("checkservice", "nagra", "Lines")
    output = capsys.readouterr().out
    assert f"ok   127.0.0.1:{server.port} has the same shared secret and rejects an unknown user.\n" in output
