"""Refused requests in the audit trail, on a real server."""

from ags.sessions.models import Event
from tests.support.clients import HeadEnd
from tests.support.live import use_server
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until


def find_event(correlation_id: str) -> Event:
    events = Event.unscoped.filter(correlation_id=correlation_id)
    wait_until(events.exists, "the refusal is not stored")
    return events.get()


def test_a_refusal_is_stored_with_its_reason(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = use_server(server, nagra)
    head_end.present(head_end.token(headers={"kid": "another"}), x_correlation_id="unknown")
    event = find_event("unknown")
    assert event.tenant_id == nagra.tenant_id
    assert (event.kind, event.reason, event.kid) == ("refused", "key_unknown", "another")
    assert event.client_address == "127.0.0.1"
    assert event.details["status"] == 401
