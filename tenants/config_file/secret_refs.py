"""Where a secret is that a configuration file refers to: in a variable, in a file, or in place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError

from tenants.config_file.yaml_loader import ConfigurationError
from tenants.secrets import key_material
from tenants.whitespace import strip_whitespace

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,254}")
ENCODINGS = ("text", "base64", "base64url")

SECRET_FILE_MAX_LENGTH = 16 * 1024
"""Characters that are read of a file with a secret: more than any secret needs."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is: in a variable, in a file, or here."""

    path: str
    source: str
    value: str = field(repr=False)
    encoding: str = "text"


def reference(value: Any, path: str) -> Reference:
    """Return what the file says of a secret. Raises ConfigurationError."""
    # What stands here may be the secret itself in a place where it should not be: nothing of it is repeated.
    wanted = "must be one of {env: NAME}, {file: PATH}, {base64: …}, {base64url: …}, {text: …}"
    if not isinstance(value, dict):
        raise ConfigurationError(path, wanted)
    members = dict(value)
    encoding = members.pop("encoding", None)
    if len(members) != 1 or not isinstance(source := next(iter(members)), str):
        raise ConfigurationError(path, wanted)
    content = members[source]
    if source not in ("env", "file", *ENCODINGS):
        raise ConfigurationError(path, wanted)
    if not isinstance(content, str):
        raise ConfigurationError(
            f"{path}.{source}", "must be text; put it in quotes if it looks like something else"
        )
    if source in ENCODINGS:
        if encoding is not None:
            raise ConfigurationError(f"{path}.encoding", "is for env and file only")
        return Reference(path, "here", content, source)
    if source == "env" and not _VARIABLE.fullmatch(content):
        raise ConfigurationError(
            f"{path}.env", "must be the name of a variable: capital letters, digits and _"
        )
    if source == "file" and not content:
        raise ConfigurationError(f"{path}.file", "must be a path")
    if encoding not in (None, *ENCODINGS):
        raise ConfigurationError(f"{path}.encoding", f"must be one of {', '.join(ENCODINGS)}")
    return Reference(path, source, content, encoding or "text")


def resolve(reference: Reference, folder: Path) -> bytes | None:
    """Return the bytes that a reference leads to, or None for a variable that is not set."""
    match reference.source:
        case "env":
            text = os.environ.get(reference.value, "")
            if not strip_whitespace(text):
                return None
        case "file":
            try:
                with (folder / reference.value).open(encoding="utf-8") as stream:
                    text = stream.read(SECRET_FILE_MAX_LENGTH)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "not UTF-8 text"
                raise ConfigurationError(
                    f"{reference.path}.file", f"cannot read {reference.value}: {why}"
                ) from None
        case _:
            text = reference.value
    with located_at(reference.path):
        return key_material.decode(text, reference.encoding)


@contextmanager
def located_at(path: str) -> Iterator[None]:
    """Say of what is refused where it stands in the file."""
    try:
        yield
    except ValidationError as problem:
        raise ConfigurationError(path, problem.messages[0]) from None
