"""The provider `radius`, with a real FreeRADIUS and with fake servers."""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import (
    FailureReason,
    Identity,
    KeyRing,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import strategies
from providers.upstream import bulkhead
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.support.clients import ClientApp, HeadEnd
from tests.support.markers import skip_unless_installed
from tests.support.upstream.deadlines import LONG, SHORT, retry_with_longer_deadlines
from tests.support.upstream.freeradius import PASSWORD, SECRET, FreeRADIUS, freeradius, settings_at
from tests.support.upstream.unusable import closed_port
from tests.support.waiting import PATIENCE, wait_until

pytestmark = skip_unless_installed(
    programs={"freeradius": "apt-get install freeradius"},
    modules={"pyrad": "pip install --require-hashes -r requirements/radius.txt"},
)

RING = KeyRing("nagra", {})
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


def cleaned(settings: dict[str, Any], deadline: float = LONG) -> Any:
    return {**clean_settings(strategies()["radius"], settings)[1], "deadline": deadline}


def verify(username: str, password: str, settings: dict[str, Any], deadline: float = LONG) -> Identity:
    parameters = {"Username": username, "Password": password}
    identity = strategies()["radius"].verify(parameters, cleaned(settings, deadline), RING)
    assert isinstance(identity, Identity)
    return identity


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


UNKNOWN = FailureReason.CREDENTIAL_UNKNOWN
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
    with fake(lambda request: []) as (settings, requests):
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


Response = Callable[[bytes], list[bytes]]


@contextmanager
def fake(respond: Response, *, from_its_port: bool = True) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Run a server that sends datagrams for each request; yield the settings and the received requests.

    The list of requests is complete when the context ends.
    """
    requests: list[bytes] = []
    with _socket() as listener, _socket() as other:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.02)
        ended = threading.Event()

        def serve() -> None:
            while True:
                try:
                    request, caller = listener.recvfrom(8192)
                except TimeoutError:
                    if ended.is_set():
                        return
                    continue
                requests.append(request)
                for datagram in respond(request):
                    (listener if from_its_port else other).sendto(datagram, caller)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield settings_at(listener.getsockname()[1]), requests
        finally:
            wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")
            ended.set()
            thread.join(PATIENCE)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def packet(
    request: bytes,
    code: int = 2,
    *,
    identifier: int | None = None,
    attributes: bytes = b"",
    proof: bytes | None = None,
    secret: bytes = SECRET.encode(),
) -> bytes:
    """Return a response to the request (RFC 2865, section 3; RFC 3579, section 3.2)."""
    number = request[1] if identifier is None else identifier
    placed = b"\x50\x12" + bytes(16) if proof is None else proof
    length = 20 + len(placed) + len(attributes)
    head = struct.pack("!BBH", code, number, length)
    if proof is None:
        digest = hmac.new(secret, head + request[4:20] + placed + attributes, "md5").digest()
        placed = b"\x50\x12" + digest
    body = placed + attributes
    return head + hashlib.md5(head + request[4:20] + body + secret).digest() + body


def altered(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


INVALID_RESPONSES: dict[str, Response] = {
    "without a Message-Authenticator": lambda request: [packet(request, proof=b"")],
    "with a wrong one": lambda request: [packet(request, proof=b"\x50\x12" + bytes(16))],
    "with half of one": lambda request: [packet(request, proof=b"\x50\x0a" + bytes(8))],
    "with an empty one": lambda request: [packet(request, proof=b"\x50\x02")],
    "with another secret": lambda request: [packet(request, secret=b"another secret, long")],
    "with another authenticator": lambda request: [altered(packet(request), 4)],
    "to another request": lambda request: [packet(request, identifier=(request[1] + 1) % 256)],
    "to an older request": lambda request: [packet(request[:4] + bytes(16))],
    "that was a rejection": lambda request: [b"\x02" + packet(request, 3)[1:]],
    "with a Proxy-State that was not sent": lambda request: [packet(request, attributes=b"\x21\x04ab")],
    "with another code": lambda request: [packet(request, 5)],
    "the request itself": lambda request: [request],
    "empty": lambda request: [b""],
    "garbage": lambda request: [b"x", b"HTTP/1.1 200 OK\r\n\r\n" * 3, bytes(4096)],
    "with an attribute of no length": lambda request: [packet(request, attributes=b"\x19\x00")],
    "truncated": lambda request: [packet(request)[:-1]],
    "larger than a packet": lambda request: [packet(request) + bytes(5000)],
}


@pytest.mark.parametrize("respond", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_an_invalid_response_is_ignored(respond: Response) -> None:
    with fake(respond) as (settings, _):
        with pytest.raises(UpstreamUnavailable) as raised:
            retry_with_longer_deadlines(lambda deadline: verify("alice", PASSWORD, settings, deadline))
        assert raised.value.failure is UpstreamFailure.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("respond", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_a_valid_response_after_an_invalid_one_is_used(respond: Response) -> None:
    with fake(lambda request: [*respond(request), packet(request)]) as (settings, _):
        assert verify("alice", PASSWORD, settings) == Identity("alice")


def test_a_challenge_is_a_rejection() -> None:
    with (
        fake(lambda request: [packet(request, 11)]) as (settings, _),
        pytest.raises(VerificationFailed) as raised,
    ):
        verify("alice", PASSWORD, settings)
    assert raised.value.reason is UNKNOWN


def test_a_response_from_another_port_is_ignored() -> None:
    with fake(lambda request: [packet(request)], from_its_port=False) as (settings, requests):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, settings, SHORT)
        assert raised.value.failure is UpstreamFailure.TIMEOUT
    assert requests


@given(st.binary(max_size=200), st.sampled_from([2, 3, 11]))
def test_arbitrary_attributes_cause_no_exception(attributes: bytes, code: int) -> None:
    from providers.radius.exchange import _verify_response, access_request

    request = access_request("alice", PASSWORD, cleaned(settings_at(1812)))
    _verify_response(request, attributes)
    _verify_response(request, packet(request.RequestPacket(), code, attributes=attributes))


def test_retransmissions_are_identical_and_start_with_a_message_authenticator() -> None:
    with fake(lambda request: []) as (settings, requests):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, {**settings, "attempts": 3}, SHORT)
        assert raised.value.failure is UpstreamFailure.TIMEOUT
    assert len(requests) == 3
    assert len(set(requests)) == 1
    raw = requests[0]
    assert (raw[0], raw[20:22]) == (1, b"\x50\x12")
    digest = hmac.new(SECRET.encode(), raw[:22] + bytes(16) + raw[38:], "md5").digest()
    assert raw[22:38] == digest
    assert PASSWORD.encode() not in raw


def test_the_second_attempt_can_succeed() -> None:
    requests: list[bytes] = []

    def respond(request: bytes) -> list[bytes]:
        requests.append(request)
        return [packet(request)] if requests.count(request) == 2 else []

    with fake(respond) as (settings, _):
        twice = {**settings, "attempts": 2}
        identity = retry_with_longer_deadlines(lambda deadline: verify("alice", PASSWORD, twice, deadline))
        assert identity == Identity("alice")


def test_an_unreachable_server_and_a_forbidden_address(settings: Any) -> None:
    with closed_port() as port:
        gone = settings_at(port)
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, gone)
        assert raised.value.failure is UpstreamFailure.UNREACHABLE
    settings.AGS_PRIVATE_UPSTREAMS = []
    with pytest.raises(UpstreamUnavailable) as raised:
        verify("alice", PASSWORD, gone)
    assert raised.value.failure is UpstreamFailure.ADDRESS_FORBIDDEN


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
    with fake(lambda request: [packet(request)]) as (settings, _):
        (found,) = strategies()["radius"].check(cleaned(settings), RING)
        assert not found.passed
        assert "does not reject" in found.message


def offer(server: FreeRADIUS, **changes: Any) -> None:
    Service(
        tenant_id="nagra",
        name="Lines",
        strategy="radius",
        display_name="x",
        enabled=True,
        settings=server.settings(**changes),
    ).save()


def proof(username: str, password: str) -> dict[str, Any]:
    return {"parameters": [{"name": "username", "value": username}, {"name": "password", "value": password}]}


def test_a_line_is_exchanged_for_a_session_token(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **LINES)
    answer = nagra.post(proof(LINE, LINE_SECRET), x_auth_service_id="Lines")
    assert answer.status_code == 200
    body = {
        "parameters": [{"name": "sessionToken", "value": answer.json()["sessionToken"]}],
        "deviceInformation": {"deviceType": "STB"},
    }
    signed_on = ClientApp(nagra).call("/ags/signOnWithSessionToken", body, x_auth_service_id="Lines")
    assert (signed_on.status_code, signed_on.json()["accountId"]) == (201, LINE)


def test_two_account_attributes_are_ambiguous(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **CLASS)
    answer = nagra.post(proof("twice", PASSWORD), x_auth_service_id="Lines")
    assert (answer.status_code, answer.json()["reason"]) == (403, "account_ambiguous")


def test_a_wrong_password_and_an_unknown_user_get_the_same_response(
    server: FreeRADIUS, nagra: HeadEnd
) -> None:
    offer(server)
    responses = []
    for username, password in (("alice", "wrong"), ("nobody", PASSWORD), ("alice", "")):
        answer = nagra.post(proof(username, password), x_auth_service_id="Lines", x_correlation_id="c")
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
