"""`manage.py reseal`: encrypt all secrets with the newest of AGS_ENCRYPTION_KEYS."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.models import Key, Service, SigningKey
from tenants.secrets.encryption import DecryptionFailed, is_encrypted_with_newest_key

ENCRYPTED_COLUMNS = {Key: "sealed_secret", SigningKey: "sealed_secret", Service: "sealed_secrets"}


class Command(BaseCommand):
    """Run after a new encryption key has been put first, and before the old one is removed."""

    help = (
        "Encrypt all secrets with the newest (the first) of AGS_ENCRYPTION_KEYS. Run it before you remove an "
        "old encryption key. It can be run repeatedly. Exit status: 0 on success, 1 if a secret cannot be "
        "decrypted."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Re-encrypt row by row. Continue after a row that cannot be decrypted, and report it at the end."""
        reencrypted, failed = 0, []
        for model, column in ENCRYPTED_COLUMNS.items():
            rows = model.unscoped.exclude(**{column: None}).order_by("pk")
            for row in rows.iterator(chunk_size=500):
                if not getattr(row, column):  # a public key
                    continue
                if is_encrypted_with_newest_key(bytes(getattr(row, column))):
                    continue
                try:
                    row.reencrypt()
                except DecryptionFailed:
                    failed.append(f"{row.tenant_id}/{row}")
                else:
                    reencrypted += 1
        self.stdout.write(f"{reencrypted} re-encrypted")
        if failed:
            raise CommandError(f"cannot be decrypted with any encryption key: {', '.join(failed)}")
