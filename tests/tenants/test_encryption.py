"""Encryption at rest: values are bound to their row, and `manage.py reseal` moves them to the newest key."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import Key, Tenant
from tenants.secrets.encryption import DecryptionFailed, decrypt, encrypt, is_encrypted_with_newest_key
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.configuration import ENCRYPTION_KEY as OLD
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.operators import add_key

SECRET = b"a secret of 33 bytes, not a word."
ROW = ("key", "nagra", "key-1")


def key_of(head_end: HeadEnd) -> Key:
    return Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)


def test_a_secret_is_decrypted_for_its_row() -> None:
    assert decrypt(encrypt(SECRET, ROW), ROW) == SECRET


def test_each_ciphertext_is_different_and_does_not_contain_the_secret() -> None:
    encrypted = {encrypt(SECRET, ROW) for _ in range(50)}
    assert len(encrypted) == 50
    assert len({value[5:17] for value in encrypted}) == 50, "nonces must be unique"
    assert not any(SECRET[:8] in value for value in encrypted)


OTHER_ROWS = [
    ("key", "sunrise", "key-1"),
    ("key", "nagra", "key-2"),
    ("setting", "nagra", "key-1"),
    ("key", "nagrakey-1", ""),
    ("key", "nagra"),
    ("key", "nagr", "akey-1"),
    (),
]


@pytest.mark.parametrize("row", OTHER_ROWS)
def test_a_secret_cannot_be_decrypted_for_another_row(row: tuple[str, ...]) -> None:
    with pytest.raises(DecryptionFailed):
        decrypt(encrypt(SECRET, ROW), row)


def test_every_changed_bit_and_truncation_is_detected() -> None:
    encrypted = encrypt(SECRET, ROW)
    for index in range(len(encrypted)):
        changed = bytearray(encrypted)
        changed[index] ^= 1
        with pytest.raises(DecryptionFailed):
            decrypt(bytes(changed), ROW)
        with pytest.raises(DecryptionFailed):
            decrypt(encrypted[:index], ROW)


def test_every_key_decrypts_and_the_newest_encrypts(settings: Any) -> None:
    before = encrypt(SECRET, ROW)
    for keys in ((OLD, NEW), (NEW, OLD)):
        settings.AGS_ENCRYPTION_KEYS = keys
        assert decrypt(before, ROW) == SECRET
        assert decrypt(encrypt(SECRET, ROW), ROW) == SECRET
        assert is_encrypted_with_newest_key(encrypt(SECRET, ROW))
        assert is_encrypted_with_newest_key(before) is (keys[0] == OLD)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(DecryptionFailed):
        decrypt(before, ROW)


def test_a_secret_copied_from_another_tenant_cannot_be_decrypted(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Write access to the table alone does not allow one tenant to sign for another."""
    stolen = bytes(key_of(nagra).sealed_secret)
    Key.objects.for_tenant("sunrise").update(sealed_secret=stolen, kid=nagra.kid)
    with pytest.raises(DecryptionFailed):
        key_of(HeadEnd("sunrise", nagra.kid, b"")).secret()
    forger = HeadEnd("sunrise", nagra.kid, nagra.secret)
    response = forger.present(forger.token())
    assert (response.status_code, response.json()["reason"]) == (401, "not_authenticated")
    assert nagra.present(nagra.token()).status_code == 200


def test_the_system_check_names_rows_that_cannot_be_decrypted(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(SystemCheckError) as raised:
        call_command("check", databases=["default"])
    message = str(raised.value)
    assert message.count("(tenants.E001)") == 6
    for head_end in (nagra, sunrise):
        assert f"tenant '{head_end.tenant_id}', key '{head_end.kid}'" in message
        assert f"tenant '{head_end.tenant_id}', signing key '" in message


# reseal


def reseal() -> str:
    out = io.StringIO()
    call_command("reseal", stdout=out)
    return out.getvalue()


def test_reseal_includes_keys_in_every_state(nagra: HeadEnd, sunrise: HeadEnd, settings: Any) -> None:
    add_key(HeadEnd("nagra", "gone", bytes(range(50, 90))), state="revoked")
    versions = list(Tenant.objects.order_by("id").values_list("version", flat=True))
    settings.AGS_ENCRYPTION_KEYS = (OLD, NEW)  # first, add the new key as an additional one
    assert reseal() == "0 re-encrypted\n"
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)  # then, make it the newest
    assert reseal() == "7 re-encrypted\n"
    with CaptureQueriesContext(connection) as captured:
        assert reseal() == "0 re-encrypted\n"
    assert not any(query["sql"].startswith("UPDATE") for query in captured)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)  # then, remove the old key
    assert {key.kid: key.secret() for key in Key.unscoped.all()} == {
        nagra.kid: nagra.secret,
        sunrise.kid: sunrise.secret,
        "gone": bytes(range(50, 90)),
    }
    assert list(Tenant.objects.order_by("id").values_list("version", flat=True)) == versions, (
        "the secrets are the same, so snapshots stay valid"
    )


def test_requests_succeed_during_a_rotation_of_the_encryption_key(nagra: HeadEnd, settings: Any) -> None:
    for keys in ((OLD, NEW), (NEW, OLD)):
        settings.AGS_ENCRYPTION_KEYS = keys
        reseal()
        snapshot.__init__()  # type: ignore[misc]
        assert nagra.present(nagra.token()).status_code == 200
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.__init__()  # type: ignore[misc]
    assert nagra.present(nagra.token()).status_code == 200


def test_reseal_names_a_row_that_cannot_be_decrypted_and_continues(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    Key.objects.for_tenant("nagra").update(sealed_secret=b"\x01 no such thing")
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("reseal", stdout=out)
    assert str(raised.value) == "cannot be decrypted with any encryption key: nagra/nagra-key-1"
    assert raised.value.returncode == 1
    assert out.getvalue() == "5 re-encrypted\n"
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert key_of(sunrise).secret() == sunrise.secret
