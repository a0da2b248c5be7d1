"""`manage.py purge`: delete expired rows."""

import argparse
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.lease import LIFETIME, LeaseNotAvailable
from ags.operations.purge import BATCH_SIZE, LINK_RETENTION, SECURITY_EVENT_RETENTION, purge


def _batch_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("must be an integer from 1 to 10000")
    return int(text)


class Command(BaseCommand):
    """To be run every few minutes by a scheduler."""

    help = (
        "Delete events, and expired session tokens whose assertion can no longer be replayed, after the "
        "retention of their tenant; expired account choices and revoked access tokens; deleted devices whose "
        f"sign-on has expired; security events {SECURITY_EVENT_RETENTION.days} days after their latest "
        "occurrence; failed logins of staff that no longer cause a lockout; states of upstream documents "
        f"that are no longer fetched; explanation links {LINK_RETENTION.days} days after they have expired; "
        "expired sessions of staff; and expired session tokens of assertions "
        "that expire in the year 9999 or later, which are rejected. One purge runs at a time: a second one "
        "names it, deletes nothing and exits with status 1. "
        f"A crashed purge blocks others for {LIFETIME.seconds} seconds."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=_batch_size, default=BATCH_SIZE, help="rows per statement, 1 to 10000"
        )

    def handle(self, *args: Any, batch: int, **options: Any) -> None:
        deleted: Counter[str] = Counter()
        try:
            for kind, count in purge(batch):
                deleted[kind] += count
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
