"""`manage.py purge`: delete expired rows."""

import argparse
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.expired import LINK_RETENTION, SECURITY_EVENT_RETENTION
from ags.operations.lease import LIFETIME, LeaseNotAvailable
from ags.operations.purge import BATCH_SIZE, purge
from ags.operations.purge_counts import SERVER
from ags.operations.row_counts import count_rows_if_due

MAX_WAIT = 30.0
"""Seconds to wait for the end of the turn of a server that purges by itself."""


def _batch_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("must be an integer from 1 to 10000")
    return int(text)


class Command(BaseCommand):
    """With `AGS_PURGE=off`, to be run every few minutes by a scheduler."""

    help = (
        "Delete events, and expired session tokens whose assertion can no longer be replayed, after the "
        "retention of their tenant; expired account choices and revoked access tokens; deleted devices whose "
        f"sign-on has expired; security events {SECURITY_EVENT_RETENTION.days} days after their latest "
        "occurrence; failed logins of staff that no longer cause a lockout; states of upstream documents "
        f"that are no longer fetched; explanation links {LINK_RETENTION.days} days after they have expired; "
        "expired sessions of staff; and expired session tokens of assertions "
        "that expire in the year 9999 or later, which are rejected. One purge runs at a time: a second one "
        "names it, deletes nothing and exits with status 1. Servers purge by themselves (AGS_PURGE): this "
        f"command waits {MAX_WAIT:.0f} seconds for the end of their turn. "
        f"A crashed purge blocks others for {LIFETIME.seconds} seconds."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=_batch_size, default=BATCH_SIZE, help="rows per statement, 1 to 10000"
        )

    def handle(self, *args: Any, batch: int, **options: Any) -> None:
        deleted: Counter[str] = Counter()
        try:
            _purge(batch, deleted)
        except LeaseNotAvailable as error:
            if not deleted:
                raise CommandError(f"Another purge is running: {error}.") from None
            raise CommandError(
                f"Stopped: this purge was blocked for longer than {LIFETIME.seconds} seconds, and another "
                f"one has started: {error}."
            ) from None
        finally:
            if deleted:
                counts = ", ".join(f"{count} {kind}" for kind, count in deleted.items())
                self.stdout.write(f"{counts} deleted")
        with suppress(LeaseNotAvailable):  # another process counts
            count_rows_if_due(time.sleep)


def _purge(batch: int, deleted: Counter[str]) -> None:
    """Raises LeaseNotAvailable. Waits for the end of the turn of a server."""
    started_at = time.monotonic()
    while True:
        try:
            for kind, count in purge(batch):
                deleted[kind] += count
        except LeaseNotAvailable as error:
            is_server = str(error).startswith(SERVER)
            if deleted or not is_server or time.monotonic() - started_at > MAX_WAIT:
                raise
            time.sleep(0.1)
        else:
            return
