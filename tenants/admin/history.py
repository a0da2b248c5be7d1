"""The changes of a tenant, service or key: who, when, before and after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from tenants.secrets.settings import is_placeholder

SHOWN = 100
"""The newest changes; older ones stay in the table."""

NOTHING = "—"
SET = "set"
CHANGED = "set to another"
"""All that is told of a secret."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field before and after."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history. `who` is empty when it came from a command."""

    when: datetime
    who: str
    what: str
    differences: list[Difference]


def changes_of(row: Any) -> tuple[list[Change], bool]:
    """Return the newest changes of that row, and whether there are more."""
    records = list(row.history.select_related("history_user")[: SHOWN + 1])
    more = len(records) > SHOWN
    if not more:
        records.append(None)  # before the first there was nothing
    return [_change(record, before) for record, before in pairwise(records)], more


def _change(record: Any, before: Any) -> Change:
    return Change(
        when=record.history_date,
        who=str(record.history_user or ""),
        what=record.get_history_type_display(),
        differences=list(_differences(record, before)),
    )


def _differences(record: Any, before: Any) -> Iterable[Difference]:
    # The tracked fields are those of the history table: a secret has no column there.
    for field in record.tracked_fields:
        new = getattr(record, field.attname)
        old = getattr(before, field.attname) if before is not None else None
        if isinstance(new, dict):
            old = old if isinstance(old, dict) else {}
            pairs = [(name, old.get(name), new.get(name)) for name in sorted({*old, *new})]
        else:
            pairs = [(str(field.verbose_name), old, new)]
        for label, was, now in pairs:
            if was != now:
                changed = CHANGED if is_placeholder(was) and is_placeholder(now) else _shown(now)
                yield Difference(label.replace("_", " "), _shown(was), changed)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if is_placeholder(value):
        return SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or NOTHING
    return str(value)
