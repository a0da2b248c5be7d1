"""Line: what the operator's server may answer, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from line.strategy import Line

from providers.contract import Identity, KeyRing, Outage, Refusal, Refused, Unavailable
from tests.support.upstream.https import HTTPSServer, Reply, as_json


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def settings(server: HTTPSServer) -> dict[str, Any]:
    return {"url": f"{server.url}/login", "api_key": "k" * 20, **server.settings}


def verify(server: HTTPSServer) -> Identity:
    parameters = {"Username": "someone", "Password": "correct horse"}
    return Line().verify(parameters, settings(server), KeyRing("nagra", {}))


@pytest.mark.parametrize("account", ["account-1", "Ünïcode", "x" * 255])
def test_it_accepts_whom_the_operator_names(server: HTTPSServer, account: str) -> None:
    server.replies["/login"] = as_json({"account": account, "more": 1})
    assert verify(server) == Identity(account_id=account)
    (asked,) = server.requests
    assert json.loads(asked.body) == {"username": "someone", "password": "correct horse"}
    assert asked.headers["authorization"] == "Bearer " + "k" * 20


def test_it_refuses_whom_the_operator_does_not_know(server: HTTPSServer) -> None:
    server.replies["/login"] = Reply(404)
    with pytest.raises(Refused) as refused:
        verify(server)
    assert refused.value.refusal is Refusal.CREDENTIAL_UNKNOWN


UNAVAILABLE = {
    "does not accept the API key": (Reply(401), Outage.REFUSES_US),
    "forbids": (Reply(403), Outage.REFUSES_US),
    "has crashed": (Reply(500), Outage.WRONG),
    "names nobody": (as_json({}), Outage.WRONG),
    "names a number": (as_json({"account": 1}), Outage.WRONG),
    "names what is no account": (as_json({"account": "a\nb"}), Outage.WRONG),
    "says no object": (as_json(["account-1"]), Outage.WRONG),
    "says no JSON": (Reply(200, b"account-1"), Outage.WRONG),
}


@pytest.mark.parametrize(("reply", "outage"), UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_nothing_can_be_said_when_the_server(server: HTTPSServer, reply: Reply, outage: Outage) -> None:
    server.replies["/login"] = reply
    with pytest.raises(Unavailable) as unavailable:
        verify(server)
    assert unavailable.value.outage is outage


@pytest.mark.parametrize(("reply", "good"), [(Reply(404), True), (as_json({"account": "a"}), False)])
def test_trying_the_settings_asks_about_nobody(server: HTTPSServer, reply: Reply, good: bool) -> None:
    server.replies["/login"] = reply
    (finding,) = Line().check(settings(server), KeyRing("nagra", {}))
    assert finding.good is good
