"""References to secrets in a configuration file: an environment variable, a file or the value itself."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from pydantic import BaseModel, ConfigDict, Discriminator, SecretStr, StringConstraints, Tag

from tenants.config_file.yaml_loader import ConfigurationError
from tenants.secrets import key_material
from tenants.whitespace import strip_whitespace

SECRET_FILE_MAX_LENGTH = 16 * 1024  # characters that are read from a secret file

Encoding = Literal["text", "base64", "base64url"]


class StrictModel(BaseModel):
    """Rejects unknown members and values of another type, with errors that do not show the input."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class EnvReference(StrictModel):
    env: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,254}$")]
    encoding: Encoding | None = None


class FileReference(StrictModel):
    file: Annotated[str, StringConstraints(min_length=1)]
    encoding: Encoding | None = None


class TextSecret(StrictModel):
    text: SecretStr


class Base64Secret(StrictModel):
    base64: SecretStr


class Base64URLSecret(StrictModel):
    base64url: SecretStr


def _form(value: Any) -> str | None:
    # A malformed reference may contain the secret, also as the name of a member: no error repeats a name.
    sources = [name for name in value if name != "encoding"] if isinstance(value, dict) else []
    return f"{{{sources[0]}}}" if len(sources) == 1 else None


SecretReference = Annotated[
    Annotated[EnvReference, Tag("{env}")]
    | Annotated[FileReference, Tag("{file}")]
    | Annotated[TextSecret, Tag("{text}")]
    | Annotated[Base64Secret, Tag("{base64}")]
    | Annotated[Base64URLSecret, Tag("{base64url}")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="must be one of "
        "{env: NAME}, {file: PATH}, {base64: …}, {base64url: …}, {text: …}",
    ),
]


class VariableNotSet(ConfigurationError):
    """The environment variable of a reference is not set, or empty."""


def resolve(reference: SecretReference, path: str, folder: Path) -> bytes:
    """Return the referenced secret. `path`: the location of the reference. Raises ConfigurationError."""
    encoding: str | None
    match reference:
        case EnvReference(env=name, encoding=encoding):
            text = os.environ.get(name, "")
            if not strip_whitespace(text):
                raise VariableNotSet(f"{path}.env", f"the variable {name} is not set")
        case FileReference(file=file, encoding=encoding):
            try:
                with (folder / file).open(encoding="utf-8") as stream:
                    text = stream.read(SECRET_FILE_MAX_LENGTH)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                raise ConfigurationError(f"{path}.file", f"cannot read {file}: {reason}") from None
        case _:
            ((encoding, secret),) = reference  # its only member
            text = secret.get_secret_value()
    with error_location(path):
        return key_material.decode(text, encoding or "text")


@contextmanager
def error_location(path: str) -> Iterator[None]:
    """Convert ValidationError into ConfigurationError with this path, and the member that the error names."""
    try:
        yield
    except ValidationError as problem:
        has_names = hasattr(problem, "error_dict")
        errors = problem.message_dict if has_names else {NON_FIELD_ERRORS: problem.messages}
        name, (message, *_) = next(iter(errors.items()))
        if name != NON_FIELD_ERRORS:
            path += f".{name}"
        # Messages about settings begin with the name of the setting.
        if name == "settings" and (setting := re.match(r"(\w++): ", message)):
            path, message = f"{path}.{setting[1]}", message[setting.end() :]
        raise ConfigurationError(path, message) from None
