"""The user names with which devices have signed on: only keyed hashes of them are stored."""

import hmac
import unicodedata

from ags.database import READS, fetch_all
from ags.sessions.models import DeviceStatus
from tenants.secrets.encryption import derive_keys
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


def username_hashes(tenant: TenantSnapshot, service: ServiceSnapshot, username: str) -> list[bytes]:
    """Return the hash of a user name of a service under each encryption key, newest key first.

    The hash is the same for spellings that an upstream may take for the same name.
    """
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold()).strip()
    text = f"{tenant.id} {service.id} {name}".encode()
    return [hmac.digest(key, text, "sha256") for key in derive_keys(b"user name")]


async def has_signed_on(tenant_id: str, client_id: str, hashes: list[bytes]) -> bool:
    """Return True if the last sign-on of the device was with the user name, and the device is enabled."""
    rows = await fetch_all(_USERNAME_SQL, {"tenant": tenant_id, "device": client_id}, READS)
    return any(value is not None and bytes(value) in hashes for (value,) in rows)


_USERNAME_SQL = f"""
SELECT username_hash FROM ags_sessions_device
 WHERE tenant_id = %(tenant)s AND client_id = %(device)s AND status = '{DeviceStatus.ENABLED}'
"""  # noqa: S608 - built from constants
