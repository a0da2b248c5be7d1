"""Replacing the IDs of an erased account and its devices in texts."""

import re
from collections.abc import Callable, Collection
from typing import Any

from django.contrib.admin.models import LogEntry
from django.db.models import QuerySet

from ags.sessions.models import Event

ERASED = "[erased]"

BATCH_SIZE = 100


def redact_details(events: QuerySet[Event], find_ids: Callable[[Event], list[str]]) -> int:
    """Replace the IDs of each event in its details. Return the number of changed events."""
    changed = []
    for event in events.only("pk", "client_id", "details"):
        details = _replace(event.details, _compile(find_ids(event)))
        if details != event.details:
            event.details = details
            changed.append(event)
    Event.unscoped.bulk_update(changed, ["details"])
    return len(changed)


def redact_log(entries: QuerySet[LogEntry], ids: Collection[str]) -> None:
    """Replace the IDs in the history of pages of the admin, and the names of their rows."""
    pattern = _compile(ids)
    changed = list(entries)
    for entry in changed:
        entry.object_repr = ERASED
        entry.change_message = pattern.sub(ERASED, entry.change_message)
    LogEntry.objects.bulk_update(changed, ["object_repr", "change_message"], batch_size=BATCH_SIZE)


def _compile(ids: Collection[str]) -> re.Pattern[str]:
    """Return a pattern of whole IDs: account-1 is not a part of account-12 or account-1-2."""
    alternatives = "|".join(re.escape(each) for each in ids if each)
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")


def _replace(value: Any, pattern: re.Pattern[str]) -> Any:
    match value:
        case str():
            return pattern.sub(ERASED, value)
        case list():
            return [_replace(item, pattern) for item in value]
        case dict():
            return {_replace(name, pattern): _replace(item, pattern) for name, item in value.items()}
    return value
