"""Strips white space around values that are pasted into forms or read from files."""

import string
from collections.abc import Mapping
from typing import Any

from django.utils.datastructures import MultiValueDict

# What `str.strip` removes, and zero-width characters: U+200B, direction marks and the byte order mark. All of
# these occur around text that is copied from a page, an e-mail or a file.
_CHARACTERS = (
    string.whitespace
    + "\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
    + "".join(map(chr, range(0x2000, 0x200C)))
    + "\u200e\u200f\u2060\ufeff"
)


def strip_whitespace(text: str) -> str:
    """Strip white space and invisible characters from both ends."""
    return text.strip(_CHARACTERS)


def strip_values(data: Mapping[str, Any], verbatim_fields: tuple[str, ...] = ()) -> Any:
    """Return form data or settings with every string stripped, except for `verbatim_fields`."""
    if not isinstance(data, MultiValueDict):
        return {
            name: value if name in verbatim_fields else _strip_value(value) for name, value in data.items()
        }
    copy = data.copy()
    for name, values in data.lists():
        if name not in verbatim_fields:
            copy.setlist(name, [_strip_value(value) for value in values])
    return copy


def _strip_value(value: Any) -> Any:
    return strip_whitespace(value) if isinstance(value, str) else value
