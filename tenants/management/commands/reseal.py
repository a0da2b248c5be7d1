"""`manage.py reseal`: encrypt every secret under the newest of AGS_ENCRYPTION_KEYS."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.models import Key, Service, SigningKey
from tenants.secrets.encryption import DecryptionFailed, encrypted_with_newest_key

SEALED = {Key: "sealed_secret", SigningKey: "sealed_secret", Service: "sealed_secrets"}
"""Which column of which model is sealed."""


class Command(BaseCommand):
    """Run it after a new encryption key was put first, and before the old one is taken away."""

    help = "Encrypt all secrets under the newest of AGS_ENCRYPTION_KEYS. Can be repeated."

    def handle(self, *args: Any, **options: Any) -> None:
        """Reseal one row after the other; go on after one that does not open, and tell at the end."""
        resealed, unreadable = 0, []
        for row, sealed in chain(*(_sealed(model, column) for model, column in SEALED.items())):
            if encrypted_with_newest_key(bytes(sealed)):
                continue
            try:
                row.reencrypt()
            except DecryptionFailed:
                unreadable.append(f"{row.tenant_id}/{row}")
            else:
                resealed += 1
        self.stdout.write(f"{resealed} resealed")
        if unreadable:
            raise CommandError(f"no encryption key opens: {', '.join(unreadable)}")


def _sealed(model: type[Any], column: str) -> Iterator[tuple[Any, Any]]:
    rows = model.unscoped.exclude(**{column: None}).order_by("pk")
    return ((row, getattr(row, column)) for row in rows.iterator(chunk_size=500))
