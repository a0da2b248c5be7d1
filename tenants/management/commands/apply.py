"""`manage.py apply FILE`: make the database say what a file says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.config_file.apply import apply
from tenants.config_file.schema import read
from tenants.config_file.yaml_loader import MAX_BYTES, ConfigurationError


class Command(BaseCommand):
    """Apply all of a file or nothing of it."""

    help = (
        "Apply tenants, services and keys from a YAML file, all or nothing. What the file does not mention "
        "is left alone: a member that is left out keeps its value, and takes the default in what is new. The "
        "settings of a service are given as a whole; a secret one can be a reference, as that of a key, and "
        "stays where its variable is not set. The secret of a key that exists is compared, unless it is left "
        "out or its variable is not set. Exit status: 0 done or nothing to do, 1 error. See "
        "examples/demo.yaml for the form."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("file", help="the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="print the difference and change nothing")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        """Read, apply, tell."""
        raw, folder = _contents(file)
        try:
            changes = apply(read(raw), folder, dry_run=dry_run)
        except ConfigurationError as mistake:
            raise CommandError(str(mistake)) from None
        for change in changes:
            self.stdout.write(change)
        if not changes:
            self.stdout.write("nothing to do")
        elif dry_run:
            self.stdout.write("nothing was changed: this was a dry run")


def _contents(file: str) -> tuple[bytes, Path]:
    """Return what is in the file, and the folder that paths in it are relative to."""
    if file == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1), Path.cwd()
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1), Path(file).parent
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
