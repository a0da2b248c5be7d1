"""`manage.py migrate`: Django's, which never makes the service wait for long (decision 0020)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration

from ags.operations.lock_waits import LOCK_TIMEOUT, LockWaits, drop_invalid_indexes, is_lock_timeout

RETRIES = 60
LONGEST_PAUSE = 5  # seconds


def _retries(text: str) -> int:
    if not text.isdecimal() or int(text) > 10_000:
        raise argparse.ArgumentTypeError("it must be a whole number from 0 to 10000")
    return int(text)


class Command(migrate.Command):
    """Retries a migration that does not get a lock at once."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        super().add_arguments(parser)
        parser.add_argument(
            "--lock-retries",
            type=_retries,
            default=RETRIES,
            help="PostgreSQL: how often to retry while others hold a lock, 0 to 10000 "
            f"(default: {RETRIES}, five minutes). Each attempt waits {LOCK_TIMEOUT}, so that requests "
            f"are not held back. Between attempts 1 to {LONGEST_PAUSE} seconds pass.",
        )

    def handle(self, *args: Any, lock_retries: int, **options: Any) -> None:
        """Migrate. Raises CommandError where a lock is held for longer than the retries last."""
        self.database = connections[options["database"]]
        if self.database.vendor != "postgresql":
            super().handle(*args, **options)
            return
        waits = LockWaits(
            self.database.alias, lambda lock: self._warn(f"Waiting without holding requests back: {lock}.")
        )
        with waits.limited():
            for retry in range(lock_retries + 1):
                try:
                    # What is applied is left out the next time: the plan is made anew.
                    super().handle(*args, **options)
                except OperationalError as error:
                    if not is_lock_timeout(error):
                        raise
                else:
                    return
                if retry < lock_retries:
                    pause = min(retry + 1, LONGEST_PAUSE)
                    self._warn(
                        f"Not applied: {waits.holders}. Retry {retry + 1} of {lock_retries} in {pause} s."
                    )
                    time.sleep(pause)
        raise CommandError(
            f"Not applied: {waits.holders}. What was applied before stays applied, and the service goes on. "
            "Wait until the holder has ended, or end it, and run migrate again."
        )

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Also drop, before a migration that is not atomic, the indexes that its last attempt left invalid.

        Else it would find the name taken: it would fail, or take the index for made (IF NOT EXISTS).
        """
        starts = action in {"apply_start", "unapply_start"} and self.database.vendor == "postgresql"
        if starts and migration and not migration.atomic and not fake:
            models = apps.get_app_config(migration.app_label).get_models(include_auto_created=True)
            for name in drop_invalid_indexes(self.database, [model._meta.db_table for model in models]):
                self._warn(f"Dropped the index {name}, which an interrupted migration left invalid.")
        super().migration_progress_callback(action, migration, fake)

    def _warn(self, sentence: str) -> None:
        if self.verbosity:
            self.stdout.write("")  # the line "Applying …" is not finished
        self.stderr.write(sentence)
