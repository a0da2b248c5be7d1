"""`manage.py purge`: delete what is dead."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.lease import LIFETIME, LeaseNotAvailable
from ags.operations.purge import BATCH, EVENTS_KEPT, purge


def _batch(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("it must be a whole number from 1 to 10000")
    return int(text)


class Command(BaseCommand):
    """To be run every few minutes by whatever runs jobs."""

    help = (
        "Delete session tokens that have expired, once no assertion behind them could be replayed; choices "
        "of an account and revoked access tokens that have expired; deleted devices whose last sign-on would "
        "have ended by itself; "
        f"security events, {EVENTS_KEPT.days} days after they have last happened; failed logins of staff, "
        "once they lock out nobody; sessions of staff that have expired; and expired session tokens of "
        "assertions that expire in the year 9999 or later, which are refused. One purge runs at a time; a "
        "second one names it, does nothing and ends with status 1. A purge that has died keeps others away "
        f"for {LIFETIME.seconds} seconds."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--batch", type=_batch, default=BATCH, help="rows a statement, 1 to 10000")

    def handle(self, *args: Any, batch: int, **options: Any) -> None:
        """Purge and say how many, also where it ends early."""
        deleted: Counter[str] = Counter()
        try:
            for kind, count in purge(batch):
                deleted[kind] += count
        except LeaseNotAvailable as error:
            if not deleted:
                raise CommandError(f"Another purge is running: {error}.") from None
            raise CommandError(
                f"Stopped: it was stuck for longer than {LIFETIME.seconds} seconds, and another purge has "
                f"begun: {error}."
            ) from None
        finally:
            if deleted:
                counts = ", ".join(f"{count} {kind}" for kind, count in deleted.items())
                self.stdout.write(f"{counts} deleted")
