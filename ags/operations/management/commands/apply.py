"""`manage.py apply FILE`: apply a configuration file to the database."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, OperationalError, transaction

from ags.operations.staff_file import apply_staff
from tenants.config_file.apply import apply
from tenants.config_file.schema import ConfigurationFile, parse_file
from tenants.config_file.yaml_loader import MAX_BYTES, ConfigurationError

ATTEMPTS = 4
UNIQUE_VIOLATION, DEADLOCK = "23505", "40P01"
"""SQLSTATEs of PostgreSQL. Errors of SQLite have none."""


class Command(BaseCommand):
    help = (
        "Create and update tenants, services, keys, resource servers and groups of staff, and the groups "
        "and tenants of staff users, from a YAML file, in one transaction. Those that are not in the file "
        "are not changed. An omitted member keeps its value; in a new entry, it has its default. The "
        "settings of a service are replaced as a whole. A secret setting, like the secret of a key, can be "
        "a reference; if its environment variable is not set, the stored secret is kept. The secret of an "
        "existing key or resource server cannot be changed: it is compared, unless it is omitted or its "
        "variable is not set. Exit status: 0 on success, also without changes; 1 on error. See "
        "examples/demo.yaml for the format."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="path of the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="print the changes without saving them")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        raw, folder = _read(file)
        try:
            entries = parse_file(raw)
            changes = _apply_repeatedly(entries, folder, dry_run=dry_run)
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        for change in changes:
            self.stdout.write(change)
        if not changes:
            self.stdout.write("nothing to do")
        elif dry_run:
            self.stdout.write("dry run: nothing was saved")


def _apply_repeatedly(entries: ConfigurationFile, folder: Path, *, dry_run: bool) -> list[str]:
    """Apply the file again if another command or page has added a row of it: then change that row.

    Two files that add the same tenants in different orders wait for each other, and PostgreSQL ends one.
    Raises ConfigurationError, and Django's database errors.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _apply(entries, folder, dry_run=dry_run)
        except (IntegrityError, OperationalError) as error:
            if getattr(error.__cause__, "sqlstate", DEADLOCK) not in {UNIQUE_VIOLATION, DEADLOCK}:
                raise
    return _apply(entries, folder, dry_run=dry_run)


@transaction.atomic
def _apply(entries: ConfigurationFile, folder: Path, *, dry_run: bool) -> list[str]:
    changes = apply(entries.tenants, folder) + apply_staff(entries.groups, entries.users)
    transaction.set_rollback(dry_run)
    return changes


def _read(file: str) -> tuple[bytes, Path]:
    """Return the content, and the directory to which paths in the file are relative."""
    if file == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1), Path.cwd()
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1), Path(file).parent
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
