"""References to secrets in a configuration file: an environment variable, a file or the value itself."""

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

_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,254}")
ENCODINGS = ("text", "base64", "base64url")

SECRET_FILE_MAX_LENGTH = 16 * 1024
"""The maximum number of characters that are read from a secret file."""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """`source` is `env` (`value` is the name of a variable), `file` (a path) or `inline` (the secret).

    `path` is the location in the configuration file, for error messages.
    """

    path: str
    source: str
    value: str = field(repr=False)
    encoding: str = "text"


def parse_reference(value: Any, path: str) -> SecretReference:
    """Parse a reference such as `{env: NAME}`. Raises ConfigurationError."""
    # A malformed reference may contain the secret itself, so no error message repeats it.
    expected = "must be one of {env: NAME}, {file: PATH}, {base64: …}, {base64url: …}, {text: …}"
    if not isinstance(value, dict):
        raise ConfigurationError(path, expected)
    members = dict(value)
    encoding = members.pop("encoding", None)
    if len(members) != 1 or not isinstance(source := next(iter(members)), str):
        raise ConfigurationError(path, expected)
    content = members[source]
    if source not in ("env", "file", *ENCODINGS):
        raise ConfigurationError(path, expected)
    if not isinstance(content, str):
        raise ConfigurationError(
            f"{path}.{source}", "must be a string; quote it if YAML reads it as another type"
        )
    if source in ENCODINGS:
        if encoding is not None:
            raise ConfigurationError(f"{path}.encoding", "is allowed with env and file only")
        return SecretReference(path, "inline", content, source)
    if source == "env" and not _VARIABLE_NAME.fullmatch(content):
        raise ConfigurationError(
            f"{path}.env", "must be the name of an environment variable: capital letters, digits and _"
        )
    if source == "file" and not content:
        raise ConfigurationError(f"{path}.file", "must be a path")
    if encoding not in (None, *ENCODINGS):
        raise ConfigurationError(f"{path}.encoding", f"must be one of {', '.join(ENCODINGS)}")
    return SecretReference(path, source, content, encoding or "text")


def resolve(reference: SecretReference, folder: Path) -> bytes | None:
    """Return the referenced secret, or None for an environment variable that is empty or not set.

    Raises ConfigurationError.
    """
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
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                raise ConfigurationError(
                    f"{reference.path}.file", f"cannot read {reference.value}: {reason}"
                ) from None
        case _:
            text = reference.value
    with error_location(reference.path):
        return key_material.decode(text, reference.encoding)


@contextmanager
def error_location(path: str) -> Iterator[None]:
    """Convert ValidationError into ConfigurationError with this path."""
    try:
        yield
    except ValidationError as problem:
        raise ConfigurationError(path, problem.messages[0]) from None
