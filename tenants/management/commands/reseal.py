"""`manage.py reseal`: encrypt every secret under the newest of AGS_ENCRYPTION_KEYS."""

from __future__ import annotations

from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.encryption import Unsealable, sealed_by_newest
from tenants.models import Key, SigningKey


class Command(BaseCommand):
    """Run it after a new encryption key was put first, and before the old one is taken away."""

    help = "Encrypt the secrets of all keys under the newest of AGS_ENCRYPTION_KEYS. Can be repeated."

    def handle(self, *args: Any, **options: Any) -> None:
        """Reseal one key after the other; go on after one that does not open, and tell at the end."""
        resealed, unreadable = 0, []
        keys = chain(*(m.unscoped.order_by("pk").iterator(chunk_size=500) for m in (Key, SigningKey)))
        for key in keys:
            if sealed_by_newest(bytes(key.sealed_secret)):
                continue
            try:
                key.reseal()
            except Unsealable:
                unreadable.append(f"{key.tenant_id}/{key.kid}")
            else:
                resealed += 1
        self.stdout.write(f"{resealed} resealed")
        if unreadable:
            raise CommandError(f"no encryption key opens: {', '.join(unreadable)}")
