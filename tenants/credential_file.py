"""The credential file of the vendor: a shared secret with its tenant and its key ID, as JSON."""

import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from providers.contract import KeyKind
from providers.strict_json import NotStrictJSON, parse
from tenants.models import TENANT_ID, Key, Tenant
from tenants.secrets import key_material
from tenants.secrets.encryption import DecryptionFailed

MAX_BYTES = 64 * 1024

_DEPTH = 4
_MEMBERS = {"tenantId": str, "credentialId": str, "signingKey": str}
_OPTIONAL_MEMBERS = {"credentialName": str, "privilege": list}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HARMLESS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")


class CredentialError(ValueError):
    """The file cannot be imported. The message contains no value from it but a tenant ID and a key ID."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The content of a credential file. `ignored`: the names of members that AGS does not know."""

    tenant_id: str
    kid: str
    secret: bytes = field(repr=False)
    name: str | None
    privileges: list[Any]
    ignored: list[str]


def parse_credential(raw: bytes) -> Credential:
    """Raises `CredentialError`."""
    if len(raw) > MAX_BYTES:
        raise CredentialError(f"The file is larger than {MAX_BYTES:,} bytes.")
    try:
        members = parse(raw.removeprefix(_BYTE_ORDER_MARK), _DEPTH)
    except NotStrictJSON as error:
        raise CredentialError(f"The file is not valid JSON: {error}.") from None
    if not isinstance(members, dict):
        raise CredentialError("The file is not a JSON object.")
    for name, type_ in {**_MEMBERS, **_OPTIONAL_MEMBERS}.items():
        if name in _MEMBERS and name not in members:
            raise CredentialError(f"The member {name} is missing.")
        if name in members and not isinstance(members[name], type_):
            raise CredentialError(f"The member {name} must be {'a string' if type_ is str else 'an array'}.")
    try:
        secret = key_material.decode(members["signingKey"], "base64")
    except ValidationError as problem:
        raise CredentialError(f"The member signingKey: {problem.messages[0]}") from None
    return Credential(
        tenant_id=members["tenantId"],
        kid=members["credentialId"],
        secret=secret,
        name=members.get("credentialName"),
        privileges=members.get("privilege", []),
        ignored=_describe_names(members.keys() - _MEMBERS.keys() - _OPTIONAL_MEMBERS.keys()),
    )


@transaction.atomic
def import_credential(credential: Credential, state: str) -> tuple[Key, bool]:
    """Return the key, and whether it is new. Raises `CredentialError`."""
    is_valid = TENANT_ID.fullmatch(credential.tenant_id)
    tenants = Tenant.objects.filter(pk=credential.tenant_id) if is_valid else Tenant.objects.none()
    tenant = tenants.select_for_update(no_key=True).first()  # two imports of a file wait for each other
    if tenant is None:
        name = f" {credential.tenant_id}" if is_valid else ""
        raise CredentialError(f"The tenant{name} of the file does not exist. Add it first.")
    existing = Key.objects.for_tenant(tenant).filter(kid=credential.kid).first()
    if existing is not None:
        _require_same_secret(existing, credential.secret)
        return existing, False
    key = Key(tenant=tenant, kid=credential.kid, algorithm="HS256", state=state)
    try:
        key.set_secret(credential.secret)
    except ValidationError as problem:
        raise CredentialError(f"The member signingKey: {problem.messages[0]}") from None
    try:
        key.save()
    except ValidationError as problem:
        errors = problem.message_dict
        if "kid" in errors:
            raise CredentialError(f"The member credentialId: {errors['kid'][0]}") from None
        raise CredentialError(" ".join(problem.messages)) from None
    return key, True


def _require_same_secret(key: Key, secret: bytes) -> None:
    location = f"Key {key.kid} of {key.tenant_id} exists"
    if key.kind is KeyKind.PUBLIC_KEY:
        raise CredentialError(f"{location}, and is a public key.")
    try:
        stored = key.secret()
    except DecryptionFailed:
        raise CredentialError(f"{location}, and its secret cannot be decrypted.") from None
    if key.algorithm != "HS256" or not hmac.compare_digest(stored, secret):
        raise CredentialError(
            f"{location}, with another secret or algorithm. A key cannot be changed: ask for a credential "
            "with another credentialId."
        )


def _describe_names(names: Any) -> list[str]:
    """Return the names of unknown members. An unusual one may be a value: it is not repeated."""
    harmless = sorted(name for name in names if _HARMLESS_NAME.fullmatch(name))
    others = len(names) - len(harmless)
    return [*harmless[:10], *(["others"] if others or len(harmless) > 10 else [])]


def describe_name(credential: Credential) -> str:
    """Return the name of the credential in quotes, without control characters."""
    return json.dumps((credential.name or "")[:100])
