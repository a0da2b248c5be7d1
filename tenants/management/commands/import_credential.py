"""`manage.py import_credential FILE`: add the key of a credential file of the vendor."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.credential_file import (
    MAX_BYTES,
    Credential,
    CredentialError,
    describe_name,
    import_credential,
    parse_credential,
)
from tenants.models import KeyState


class Command(BaseCommand):
    help = (
        "Add the key of a credential file: JSON with tenantId, credentialId (the key ID), signingKey (the "
        "secret in base64), and optionally credentialName and privilege, which are not stored. The key is "
        "staged, unless --state is given. Exit status: 0 if the key was added, or exists with this secret; "
        "1 on error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="path of the file, or - for standard input")
        parser.add_argument(
            "--state",
            choices=[KeyState.STAGED.value, KeyState.ACTIVE.value],
            default=KeyState.STAGED.value,
            help="state of a new key (default: staged)",
        )

    def handle(self, *args: Any, file: str, state: str, **options: Any) -> None:
        try:
            credential = parse_credential(_read(file))
            key, is_new = import_credential(credential, state)
        except CredentialError as error:
            raise CommandError(str(error)) from None
        location = f"key {key.tenant_id}/{key.kid}"
        if is_new:
            self.stdout.write(f"+ {location}: {key.algorithm}, {key.state}")
        else:
            self.stdout.write(f"{location} is already imported; it is {key.state}")
        for line in _describe_unused(credential):
            self.stdout.write(line)
        if file != "-":
            self.stdout.write("Delete the file: it contains the secret.")


def _describe_unused(credential: Credential) -> list[str]:
    lines = []
    if credential.name is not None:
        lines.append(f"Not stored: credentialName, which is {describe_name(credential)}.")
    if credential.privileges:
        lines.append(
            "Not stored: privilege. AGS accepts the key in all services of the tenant that verify with "
            "shared secrets, and nowhere else."
        )
    if credential.ignored:
        lines.append(f"Ignored members: {', '.join(credential.ignored)}.")
    return lines


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: {getattr(error, 'strerror', None) or 'not a path'}") from None
