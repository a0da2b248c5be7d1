"""`manage.py migrate`: Django's command, with limits on lock waits (decision 0020)."""

import argparse
import time
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration

from ags.operations.lock_waits import LOCK_TIMEOUT, LockWaits, drop_invalid_indexes, is_lock_timeout

DEFAULT_RETRIES = 60
MAX_PAUSE = 5  # seconds


def _retries(text: str) -> int:
    if not text.isdecimal() or int(text) > 10_000:
        raise argparse.ArgumentTypeError("must be an integer from 0 to 10000")
    return int(text)


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--lock-retries",
            type=_retries,
            default=DEFAULT_RETRIES,
            help="PostgreSQL: how often to retry while another session holds a lock, 0 to 10000 "
            f"(default: {DEFAULT_RETRIES}, five minutes). Each attempt waits at most {LOCK_TIMEOUT}, so that "
            f"requests are not blocked. The pause between attempts is 1 to {MAX_PAUSE} seconds.",
        )

    def handle(self, *args: Any, lock_retries: int, **options: Any) -> None:
        self.database = connections[options["database"]]
        if self.database.vendor != "postgresql":
            super().handle(*args, **options)
            return
        waits = LockWaits(
            self.database.alias, lambda lock: self._warn(f"Waiting without blocking requests: {lock}.")
        )
        with waits.limited():
            for retry in range(lock_retries + 1):
                try:
                    # Each attempt plans again, without the migrations that have been applied.
                    super().handle(*args, **options)
                except OperationalError as error:
                    if not is_lock_timeout(error):
                        raise
                else:
                    return
                if retry < lock_retries:
                    pause = min(retry + 1, MAX_PAUSE)
                    self._warn(
                        f"Not applied: {waits.holders}. Retry {retry + 1} of {lock_retries} in {pause} s."
                    )
                    time.sleep(pause)
        raise CommandError(
            f"Not applied: {waits.holders}. Earlier migrations stay applied, and the service keeps running. "
            "Wait until the holder has finished, or terminate it, and run migrate again."
        )

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Drop invalid indexes: the migration would fail, or skip them (IF NOT EXISTS)."""
        starts = action in {"apply_start", "unapply_start"} and self.database.vendor == "postgresql"
        if starts and migration and not migration.atomic and not fake:
            models = apps.get_app_config(migration.app_label).get_models(include_auto_created=True)
            for name in drop_invalid_indexes(self.database, [model._meta.db_table for model in models]):
                self._warn(f"Dropped the index {name}, which an interrupted migration left invalid.")
        super().migration_progress_callback(action, migration, fake)

    def _warn(self, message: str) -> None:
        if self.verbosity:
            self.stdout.write("")  # terminates the line "Applying …"
        self.stderr.write(message)
