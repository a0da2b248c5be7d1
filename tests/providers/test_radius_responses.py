"""The provider `radius` with invalid responses and unreachable servers."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Identity, UpstreamFailure, UpstreamUnavailable, VerificationFailed
from tests.support.markers import skip_unless_installed
from tests.support.radius import UNKNOWN, Response, build_packet, cleaned, fake_radius_server, verify
from tests.support.upstream.deadlines import SHORT, retry_with_longer_deadlines
from tests.support.upstream.freeradius import PASSWORD, SECRET, settings_at
from tests.support.upstream.unusable import closed_port

pytestmark = skip_unless_installed(
    programs={"freeradius": "apt-get install freeradius"},
    modules={"pyrad": "pip install --require-hashes -r requirements/radius.txt"},
)


def altered(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


INVALID_RESPONSES: dict[str, Response] = {
    "without a Message-Authenticator": lambda request: [build_packet(request, proof=b"")],
    "with a wrong one": lambda request: [build_packet(request, proof=b"\x50\x12" + bytes(16))],
    "with half of one": lambda request: [build_packet(request, proof=b"\x50\x0a" + bytes(8))],
    "with an empty one": lambda request: [build_packet(request, proof=b"\x50\x02")],
    "with another secret": lambda request: [build_packet(request, secret=b"another secret, long")],
    "with another authenticator": lambda request: [altered(build_packet(request), 4)],
    "to another request": lambda request: [build_packet(request, identifier=(request[1] + 1) % 256)],
    "to an older request": lambda request: [build_packet(request[:4] + bytes(16))],
    "that was a rejection": lambda request: [b"\x02" + build_packet(request, 3)[1:]],
    "with a Proxy-State that was not sent": lambda request: [build_packet(request, attributes=b"\x21\x04ab")],
    "with another code": lambda request: [build_packet(request, 5)],
    "the request itself": lambda request: [request],
    "empty": lambda request: [b""],
    "garbage": lambda request: [b"x", b"HTTP/1.1 200 OK\r\n\r\n" * 3, bytes(4096)],
    "with an attribute of no length": lambda request: [build_packet(request, attributes=b"\x19\x00")],
    "truncated": lambda request: [build_packet(request)[:-1]],
    "larger than a packet": lambda request: [build_packet(request) + bytes(5000)],
}


@pytest.mark.parametrize("respond", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_an_invalid_response_is_ignored(respond: Response) -> None:
    with fake_radius_server(respond) as (settings, _):
        with pytest.raises(UpstreamUnavailable) as raised:
            retry_with_longer_deadlines(lambda deadline: verify("alice", PASSWORD, settings, deadline))
        assert raised.value.failure is UpstreamFailure.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("respond", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_a_valid_response_after_an_invalid_one_is_used(respond: Response) -> None:
    with fake_radius_server(lambda request: [*respond(request), build_packet(request)]) as (settings, _):
        assert verify("alice", PASSWORD, settings) == Identity("alice")


def test_a_challenge_is_a_rejection() -> None:
    with (
        fake_radius_server(lambda request: [build_packet(request, 11)]) as (settings, _),
        pytest.raises(VerificationFailed) as raised,
    ):
        verify("alice", PASSWORD, settings)
    assert raised.value.reason is UNKNOWN


def test_a_response_from_another_port_is_ignored() -> None:
    with fake_radius_server(lambda request: [build_packet(request)], from_its_port=False) as (
        settings,
        requests,
    ):
        with pytest.raises(UpstreamUnavailable) as raised:
            verify("alice", PASSWORD, settings, SHORT)
        assert raised.value.failure is UpstreamFailure.TIMEOUT
    assert requests


@given(st.binary(max_size=200), st.sampled_from([2, 3, 11]))
def test_arbitrary_attributes_cause_no_exception(attributes: bytes, code: int) -> None:
    from providers.radius.exchange import _verify_response, access_request

    request = access_request("alice", PASSWORD, cleaned(settings_at(1812)))
    _verify_response(request, attributes)
    _verify_response(request, build_packet(request.RequestPacket(), code, attributes=attributes))


def test_retransmissions_are_identical_and_start_with_a_message_authenticator() -> None:
    with fake_radius_server(lambda request: []) as (settings, requests):
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
        return [build_packet(request)] if requests.count(request) == 2 else []

    with fake_radius_server(respond) as (settings, _):
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
