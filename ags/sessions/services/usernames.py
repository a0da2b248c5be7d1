"""The usernames with which devices have signed on: only keyed hashes of them are stored."""

import hmac
import re
import unicodedata

from ags.database import READS, fetch_all
from ags.sessions.models import DeviceStatus
from tenants.secrets.encryption import derive_keys
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

MAX_FOLDED_CHARACTERS = 255
"""Longer names count together with those that begin with the same characters."""


def username_hashes(tenant: TenantSnapshot, service: ServiceSnapshot, username: str) -> list[bytes]:
    """Return the hash of a username of a service under each encryption key, newest key first.

    Each spelling has another hash: `Anna` may be somebody else than `anna`, whose password they guess.
    """
    text = _qualify(tenant, service, username)
    return [hmac.digest(key, text, "sha256") for key in derive_keys(b"user name")]


def username_key(tenant: TenantSnapshot, service: ServiceSnapshot, username: str) -> str:
    """Return a hash by which wrong passwords count.

    It is the same for spellings that an upstream may take for the same name, so that another spelling is not
    another count.
    """
    text = _qualify(tenant, service, _fold(username))
    return hmac.digest(derive_keys(b"user name limit")[0], text, "sha256").hex()


def _qualify(tenant: TenantSnapshot, service: ServiceSnapshot, username: str) -> bytes:
    return f"{tenant.id} {service.id} {username}".encode()


_LATIN_LETTER = re.compile(r"LATIN SMALL (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH [A-Z ]++)?")

_INVISIBLE_LETTERS = "\u115f\u1160"
"""Letters that Unicode calls ignorable. All other ignorable characters are in other categories."""


def _fold(username: str) -> str:
    """Return only the letters, digits and symbols, without case, accents, strokes and width.

    Active Directory and the default collations of databases ignore all of these.
    """
    name = unicodedata.normalize("NFKD", username[:MAX_FOLDED_CHARACTERS])
    name = unicodedata.normalize("NFKD", name.upper().casefold())
    return "".join(map(_fold_character, name))


def _fold_character(character: str) -> str:
    # L, N, P, S: not marks, separators, control characters and unassigned characters.
    if unicodedata.category(character)[0] not in "LNPS" or character in _INVISIBLE_LETTERS:
        return ""
    letter = _LATIN_LETTER.fullmatch(unicodedata.name(character, ""))
    return letter[1].lower() if letter else character


async def has_signed_on(tenant_id: str, client_id: str, hashes: list[bytes]) -> bool:
    """Return True if the last sign-on of the device was with the username, and the device is enabled."""
    rows = await fetch_all(_USERNAME_SQL, {"tenant": tenant_id, "device": client_id}, READS)
    return any(value is not None and bytes(value) in hashes for (value,) in rows)


_USERNAME_SQL = f"""
SELECT username_hash FROM ags_sessions_device
 WHERE tenant_id = %(tenant)s AND client_id = %(device)s AND status = '{DeviceStatus.ENABLED}'
"""  # noqa: S608 - built from constants
