"""JSON as staff read it: device information, and the details of events."""

import json
from collections.abc import Mapping
from typing import Any

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ags.sessions.admin.search_only import EMPTY_VALUE

JSON_MAX_LENGTH = 20_000
"""Characters of JSON that are shown."""

JSON_STYLE = "max-height: 30rem; white-space: pre-wrap; overflow-wrap: anywhere"

_MISSING = object()


def format_json(value: Any) -> SafeString:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    excess = len(text) - JSON_MAX_LENGTH
    if excess > 0:
        text = f"{text[:JSON_MAX_LENGTH]}\n… and {excess} more characters"
    return format_html('<pre class="overflow-auto" style="{}">{}</pre>', JSON_STYLE, text)


def format_details(details: Mapping[str, Any]) -> SafeString | str:
    """Format the objects `before` and `after` as a table of what differs, and anything else as JSON."""
    before, after = details.get("before"), details.get("after")
    if not (isinstance(before, dict) or isinstance(after, dict)):
        return format_json(details) if details else EMPTY_VALUE
    rest = {name: value for name, value in details.items() if name not in ("before", "after")}
    context = {"rows": _differences(before or {}, after or {}), "rest": format_json(rest) if rest else ""}
    return render_to_string("ags_sessions/admin/details.html", context)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    pairs = {name: (before.get(name, _MISSING), after.get(name, _MISSING)) for name in {**before, **after}}
    return [(name, _format(old), _format(new)) for name, (old, new) in pairs.items() if old != new]


def _format(value: Any) -> str:
    if value is _MISSING or value is None or value == "":
        return EMPTY_VALUE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= JSON_MAX_LENGTH else f"{text[:JSON_MAX_LENGTH]}…"
