"""Events of the audit trail that staff and commands cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ags.sessions.models import Event
from ags.sessions.services.staff_events import COMMAND

CORRELATION_ID = "corr-staff"


def capture_events(action: Callable[[], Any]) -> list[Event]:
    """Call the function, and return the events that it stores."""
    known = set(Event.unscoped.values_list("pk", flat=True))
    action()
    return list(Event.unscoped.exclude(pk__in=known).order_by("pk"))


def check_request(event: Event, actor: str = "admin") -> None:
    """Check who caused the event, in a request with `CORRELATION_ID`."""
    assert (event.actor, event.correlation_id, event.client_address) == (actor, CORRELATION_ID, "127.0.0.1")


def check_command(event: Event) -> None:
    assert (event.actor, event.correlation_id, event.client_address) == (COMMAND, "", None)


def change_of(event: Event) -> tuple[str, str, Any, Any]:
    """Return the model, the name of the row, and the values before and after."""
    return event.details["model"], event.details["object"], *values_of(event)


def values_of(event: Event) -> tuple[Any, Any]:
    """Return the values before and after."""
    return event.details["before"], event.details["after"]


def check_no_secret(*texts: str) -> None:
    """Check that no text is in any event. There must be one that has a secret."""
    stored = json.dumps([*Event.unscoped.values()], default=str)
    assert "set" in stored
    for text in texts:
        assert text not in stored
