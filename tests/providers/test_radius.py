"""The RADIUS server: whom it accepts is let in, and an answer that proves nothing lets nobody in."""

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
from tests import needs
from tests.conftest import ClientApp, HeadEnd
from tests.upstream.deadlines import HASTY, LONG, patiently
from tests.upstream.freeradius import PASSWORD, SECRET, FreeRADIUS, freeradius, settings_at
from tests.upstream.useless import closed
from tests.waiting import PATIENCE, wait_until

pytestmark = needs(
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


# username, password, settings that differ, the account
ACCEPTED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "by the name that was sent": ("alice", PASSWORD, {}, "alice"),
    "by the User-Name of the answer": ("alice", PASSWORD, {"account_attribute": "USER_NAME"}, "A-1"),
    "by its Class": ("alice", PASSWORD, {"account_attribute": "CLASS"}, "A-2"),
    "by its identity": ("alice", PASSWORD, {"account_attribute": "CHARGEABLE_USER_IDENTITY"}, "A-3"),
    "with the longest password": ("long", LONGEST_PASSWORD, {}, "long"),
    "of any script": ("ünï", PASSWORD, {}, "ünï"),
    "by the name of the server": ("alice", PASSWORD, {"host": "localhost"}, "alice"),
    "a line": (LINE, LINE_SECRET, LINES, LINE),
    "a line, by what the server says of it": (
        LINE,
        LINE_SECRET,
        {**LINES, "account_attribute": "CLASS"},
        "A-9",
    ),
}


@pytest.mark.parametrize(("username", "password", "settings", "account"), ACCEPTED.values(), ids=ACCEPTED)
def test_whom_the_server_accepts_is_let_in(
    server: FreeRADIUS, username: str, password: str, settings: dict[str, Any], account: str
) -> None:
    assert verify(username, password, server.settings(**settings)) == Identity(account)


UNKNOWN = FailureReason.CREDENTIAL_UNKNOWN
INVALID = FailureReason.IDENTITY_INVALID
CLASS = {"account_attribute": "CLASS"}
REFUSED: dict[str, tuple[str, str, dict[str, Any], FailureReason]] = {
    "a wrong password": ("alice", "wrong", {}, UNKNOWN),
    "an unknown user": ("nobody", PASSWORD, {}, UNKNOWN),
    "a line, as if it were a subscriber": (LINE, LINE_SECRET, {}, UNKNOWN),
    "a line, without the secret of the head-end": (LINE, "wrong", LINES, UNKNOWN),
    "a line, with the password of the lines": (LINE, LINE_PASSWORD, LINES, UNKNOWN),
    "an unknown line": ("olt-7/1/2:305", LINE_SECRET, LINES, UNKNOWN),
    "who has no such attribute": ("long", LONGEST_PASSWORD, CLASS, INVALID),
    "who has two": ("twice", PASSWORD, CLASS, FailureReason.ACCOUNT_AMBIGUOUS),
    "whose account is no text": ("bytes", PASSWORD, CLASS, INVALID),
    "whose account has a line break": ("control", PASSWORD, CLASS, INVALID),
}


@pytest.mark.parametrize(("username", "password", "settings", "refusal"), REFUSED.values(), ids=REFUSED)
def test_nobody_else_is(
    server: FreeRADIUS, username: str, password: str, settings: dict[str, Any], refusal: FailureReason
) -> None:
    with pytest.raises(VerificationFailed) as refused:
        verify(username, password, server.settings(**settings))
    assert refused.value.reason is refusal


NEVER_SENT = {
    "no username": ("", PASSWORD),
    "no password": ("alice", ""),
    "a password of 129 characters": ("alice", "x" * 129),
    "a password of 130 bytes": ("alice", "ü" * 65),
    "a password that ends in NUL": ("alice", f"{PASSWORD}\0"),
    "a password of half a character": ("alice", "\ud800"),
    "a username of 254 bytes": ("ü" * 127, PASSWORD),
    "a username with a line break": ("alice\n", PASSWORD),
    "a username of half a character": ("\ud800", PASSWORD),
}


@pytest.mark.parametrize(("username", "password"), NEVER_SENT.values(), ids=NEVER_SENT)
def test_what_no_packet_can_hold_is_refused_before_the_server_is_asked(username: str, password: str) -> None:
    with fake(lambda request: []) as (settings, asked):
        with pytest.raises(VerificationFailed) as refused:
            verify(username, password, settings)
        assert refused.value.reason is UNKNOWN
        assert not asked


def test_the_server_says_nothing_to_whom_it_shares_no_secret_with(server: FreeRADIUS) -> None:
    from providers.radius.exchange import access_request, exchange

    stranger = cleaned(server.settings(shared_secret="another secret, long enough"), HASTY)
    # Not through the strategy, which gives up a moment later, and could be the first to.
    with pytest.raises(UpstreamUnavailable, match="no answer") as raised:
        exchange(access_request("alice", PASSWORD, stranger), stranger)
    assert raised.value.failure is UpstreamFailure.TIMEOUT


Response = Callable[[bytes], list[bytes]]


@contextmanager
def fake(answer: Response, *, from_its_port: bool = True) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """A server that answers each request with those datagrams; yields settings, and what it was asked.

    When the context has ended, that is all that was sent to it.
    """
    asked: list[bytes] = []
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
                asked.append(request)
                for datagram in answer(request):
                    (listener if from_its_port else other).sendto(datagram, caller)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield settings_at(listener.getsockname()[1]), asked
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
    """An answer to that request (RFC 2865, section 3; RFC 3579, section 3.2)."""
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


WORTHLESS: dict[str, Response] = {
    "without a Message-Authenticator": lambda request: [packet(request, proof=b"")],
    "with a wrong one": lambda request: [packet(request, proof=b"\x50\x12" + bytes(16))],
    "with half of one": lambda request: [packet(request, proof=b"\x50\x0a" + bytes(8))],
    "with an empty one": lambda request: [packet(request, proof=b"\x50\x02")],
    "of somebody with another secret": lambda request: [packet(request, secret=b"another secret, long")],
    "with another authenticator": lambda request: [altered(packet(request), 4)],
    "to another request": lambda request: [packet(request, identifier=(request[1] + 1) % 256)],
    "to an older request": lambda request: [packet(request[:4] + bytes(16))],
    "that was a rejection": lambda request: [b"\x02" + packet(request, 3)[1:]],
    "with a Proxy-State that was not sent": lambda request: [packet(request, attributes=b"\x21\x04ab")],
    "of another kind": lambda request: [packet(request, 5)],
    "that is the request": lambda request: [request],
    "of nothing": lambda request: [b""],
    "of garbage": lambda request: [b"x", b"HTTP/1.1 200 OK\r\n\r\n" * 3, bytes(4096)],
    "with an attribute of no length": lambda request: [packet(request, attributes=b"\x19\x00")],
    "that is cut off": lambda request: [packet(request)[:-1]],
    "larger than a packet": lambda request: [packet(request) + bytes(5000)],
}


@pytest.mark.parametrize("answer", WORTHLESS.values(), ids=WORTHLESS)
def test_an_answer_is_thrown_away(answer: Response) -> None:
    with fake(answer) as (settings, _):
        with pytest.raises(UpstreamUnavailable) as raised:
            patiently(lambda deadline: verify("alice", PASSWORD, settings, deadline))
        assert raised.value.failure is UpstreamFailure.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("answer", WORTHLESS.values(), ids=WORTHLESS)
def test_a_good_one_that_follows_counts(answer: Response) -> None:
    with fake(lambda request: [*answer(request), packet(request)]) as (settings, _):
        assert verify("alice", PASSWORD, settings) == Identity("alice")


def test_whom_the_server_challenges_is_refused_for_there_is_nothing_more_to_say() -> None:
    with (
        fake(lambda request: [packet(request, 11)]) as (settings, _),
        pytest.raises(VerificationFailed) as refused,
    ):
        verify("alice", PASSWORD, settings)
    assert refused.value.reason is UNKNOWN


def test_an_answer_from_another_port_is_not_heard() -> None:
    with fake(lambda request: [packet(request)], from_its_port=False) as (settings, asked):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, settings, HASTY)
        assert raised.value.failure is UpstreamFailure.TIMEOUT
    assert asked


@given(st.binary(max_size=200), st.sampled_from([2, 3, 11]))
def test_no_attributes_crash_it(attributes: bytes, code: int) -> None:
    from providers.radius.exchange import _proven, access_request

    request = access_request("alice", PASSWORD, cleaned(settings_at(1812)))
    _proven(request, attributes)
    _proven(request, packet(request.RequestPacket(), code, attributes=attributes))


def test_a_request_proves_itself_first_of_all_and_is_the_same_each_time() -> None:
    with fake(lambda request: []) as (settings, asked):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, {**settings, "attempts": 3}, HASTY)
        assert raised.value.failure is UpstreamFailure.TIMEOUT
    assert len(asked) == 3
    assert len(set(asked)) == 1
    raw = asked[0]
    assert (raw[0], raw[20:22]) == (1, b"\x50\x12")
    digest = hmac.new(SECRET.encode(), raw[:22] + bytes(16) + raw[38:], "md5").digest()
    assert raw[22:38] == digest
    assert PASSWORD.encode() not in raw


def test_the_second_attempt_is_answered() -> None:
    requests: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        requests.append(request)
        return [packet(request)] if requests.count(request) == 2 else []

    with fake(answer) as (settings, _):
        twice = {**settings, "attempts": 2}
        identity = patiently(lambda deadline: verify("alice", PASSWORD, twice, deadline))
        assert identity == Identity("alice")


def test_a_server_that_is_away_is_told_from_one_that_is_silent(settings: Any) -> None:
    with closed() as port:
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
    "lines that anybody may name": ("line_secret", {**LINES, "line_secret": ""}),
    "lines with a short secret": ("line_secret", {**LINES, "line_secret": "x" * 15}),
    "lines without a password": ("line_password", {**LINES, "line_password": ""}),
}


@pytest.mark.parametrize(("field", "changes"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_would_fail_later_are_refused_now(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        cleaned(settings_at(1812, **changes))
    assert all(told.startswith(f"{field}: ") for told in refused.value.messages), refused.value.messages


def test_a_server_that_accepts_everybody_is_found_out() -> None:
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


def test_a_head_end_gets_a_session_token_for_a_line(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **LINES)
    answer = nagra.post(proof(LINE, LINE_SECRET), x_auth_service_id="Lines")
    assert answer.status_code == 200
    body = {
        "parameters": [{"name": "sessionToken", "value": answer.json()["sessionToken"]}],
        "deviceInformation": {"deviceType": "STB"},
    }
    signed_on = ClientApp(nagra).call("/ags/signOnWithSessionToken", body, x_auth_service_id="Lines")
    assert (signed_on.status_code, signed_on.json()["accountId"]) == (201, LINE)


def test_two_values_where_one_names_the_account_are_ambiguous(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server, **CLASS)
    answer = nagra.post(proof("twice", PASSWORD), x_auth_service_id="Lines")
    assert (answer.status_code, answer.json()["reason"]) == (403, "account_ambiguous")


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(server: FreeRADIUS, nagra: HeadEnd) -> None:
    offer(server)
    told = []
    for username, password in (("alice", "wrong"), ("nobody", PASSWORD), ("alice", "")):
        answer = nagra.post(proof(username, password), x_auth_service_id="Lines", x_correlation_id="c")
        told.append((answer.status_code, answer.content, sorted(answer.headers.items())))
    assert told[0][0] == 401
    assert told[1:] == told[:1] * 2


def test_trying_it_says_what_works(
    server: FreeRADIUS, nagra: HeadEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(server)
    call_command("checkservice", "nagra", "Lines")
    told = capsys.readouterr().out
    assert f"ok   127.0.0.1:{server.port} has the same shared secret, and rejects an unknown user.\n" in told
