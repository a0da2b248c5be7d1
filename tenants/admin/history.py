"""The changes of a tenant, service or key: user, time, and each field before and after.

`SimpleHistoryAdmin` is not used: its form of an old version is open to staff of other tenants, and saves
that version, so that it undoes a revocation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from tenants.secrets.service_secrets import is_placeholder
from tenants.times import format_utc

MAX_CHANGES = 100  # the page shows the newest; the table keeps all

EMPTY = "—"
SET = "set"
CHANGED = "set to another"
"""The values shown for a secret."""


@dataclass(frozen=True, slots=True)
class Difference:
    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the history. `user` is empty if a command made it."""

    time: datetime
    user: str
    action: str
    differences: list[Difference]


def changes_of(row: Any) -> tuple[list[Change], bool]:
    """Return the newest changes of the row, and whether there are more."""
    records = list(row.history.select_related("history_user")[: MAX_CHANGES + 1])
    has_more = len(records) > MAX_CHANGES
    if not has_more:
        records.append(None)  # the state before the first
    return [_change(record, before) for record, before in pairwise(records)], has_more


def _change(record: Any, before: Any) -> Change:
    return Change(
        time=record.history_date,
        user=str(record.history_user or ""),
        action=record.get_history_type_display(),
        differences=list(_differences(record, before)),
    )


def _differences(record: Any, before: Any) -> Iterable[Difference]:
    # The tracked fields are the columns of the history table, which has none for a secret.
    for field in record.tracked_fields:
        new = getattr(record, field.attname)
        old = getattr(before, field.attname) if before is not None else None
        if isinstance(new, dict):
            old = old if isinstance(old, dict) else {}
            pairs = [(name, old.get(name), new.get(name)) for name in sorted({*old, *new})]
        else:
            pairs = [(str(field.verbose_name), old, new)]
        for label, value_before, value in pairs:
            if value_before != value:
                is_replaced = is_placeholder(value_before) and is_placeholder(value)
                after = CHANGED if is_replaced else _format(value)
                yield Difference(label.replace("_", " "), _format(value_before), after)


def _format(value: Any) -> str:
    if value is None or value == "":
        return EMPTY
    if is_placeholder(value):
        return SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return format_utc(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or EMPTY
    return str(value)
