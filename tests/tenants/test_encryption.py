"""Secrets at rest: bound to their row, opened by any key, moved to the newest by `manage.py reseal`."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import Key, Tenant
from tenants.secrets.encryption import DecryptionFailed, decrypt, encrypt, encrypted_with_newest_key
from tenants.snapshot import snapshot
from tests.conftest import HeadEnd, add_key
from tests.settings import ENVIRONMENT

OLD = base64.b64decode(ENVIRONMENT["AGS_ENCRYPTION_KEYS"])
NEW = bytes(range(100, 132))
SECRET = b"a secret of 33 bytes, not a word."
ROW = ("key", "nagra", "key-1")


def key_of(head_end: HeadEnd) -> Key:
    return Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)


def test_what_is_sealed_opens_for_its_row() -> None:
    assert decrypt(encrypt(SECRET, ROW), ROW) == SECRET


def test_the_same_secret_never_looks_the_same_and_never_shows() -> None:
    sealed = {encrypt(SECRET, ROW) for _ in range(50)}
    assert len(sealed) == 50
    assert len({value[5:17] for value in sealed}) == 50, "a nonce is used once"
    assert not any(SECRET[:8] in value for value in sealed)


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
def test_it_opens_for_no_other_row(row: tuple[str, ...]) -> None:
    with pytest.raises(DecryptionFailed):
        decrypt(encrypt(SECRET, ROW), row)


def test_a_changed_bit_or_a_cut_is_noticed_everywhere() -> None:
    sealed = encrypt(SECRET, ROW)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(DecryptionFailed):
            decrypt(bytes(changed), ROW)
        with pytest.raises(DecryptionFailed):
            decrypt(sealed[:place], ROW)


def test_every_encryption_key_opens_and_the_newest_seals(settings: Any) -> None:
    before = encrypt(SECRET, ROW)
    for keys in ((OLD, NEW), (NEW, OLD)):
        settings.AGS_ENCRYPTION_KEYS = keys
        assert decrypt(before, ROW) == SECRET
        assert decrypt(encrypt(SECRET, ROW), ROW) == SECRET
        assert encrypted_with_newest_key(encrypt(SECRET, ROW))
        assert encrypted_with_newest_key(before) is (keys[0] == OLD)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(DecryptionFailed):
        decrypt(before, ROW)


def test_a_row_that_was_copied_from_another_tenant_does_not_open(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Whoever can write to the table, and nothing more, cannot make one tenant sign for another."""
    stolen = bytes(key_of(nagra).sealed_secret)
    Key.objects.for_tenant("sunrise").update(sealed_secret=stolen, kid=nagra.kid)
    with pytest.raises(DecryptionFailed):
        key_of(HeadEnd("sunrise", nagra.kid, b"")).secret()
    forger = HeadEnd("sunrise", nagra.kid, nagra.secret)
    answer = forger.present(forger.token())
    assert (answer.status_code, answer.json()["reason"]) == (401, "not_authenticated")
    assert nagra.present(nagra.token()).status_code == 200


def test_the_check_names_the_rows_that_do_not_open(nagra: HeadEnd, sunrise: HeadEnd, settings: Any) -> None:
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(SystemCheckError) as raised:
        call_command("check", databases=["default"])
    message = str(raised.value)
    assert message.count("(tenants.E001)") == 4
    for head_end in (nagra, sunrise):
        assert f"tenant '{head_end.tenant_id}', key '{head_end.kid}'" in message
        assert f"tenant '{head_end.tenant_id}', signing key '" in message


# reseal


def reseal() -> str:
    out = io.StringIO()
    call_command("reseal", stdout=out)
    return out.getvalue()


def test_a_rotation_moves_every_key_whatever_its_state(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    add_key(HeadEnd("nagra", "gone", bytes(range(50, 90))), state="revoked")
    versions = list(Tenant.objects.order_by("id").values_list("version", flat=True))
    settings.AGS_ENCRYPTION_KEYS = (OLD, NEW)  # first everybody learns the new one
    assert reseal() == "0 resealed\n"
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)  # then it is used
    assert reseal() == "5 resealed\n"
    with CaptureQueriesContext(connection) as captured:
        assert reseal() == "0 resealed\n"
    assert not any(query["sql"].startswith("UPDATE") for query in captured)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)  # then the old one is taken away
    assert {key.kid: key.secret() for key in Key.unscoped.all()} == {
        nagra.kid: nagra.secret,
        sunrise.kid: sunrise.secret,
        "gone": bytes(range(50, 90)),
    }
    assert list(Tenant.objects.order_by("id").values_list("version", flat=True)) == versions, (
        "the material is the same, so nobody need read it again"
    )


def test_nobody_notices_a_rotation(nagra: HeadEnd, settings: Any) -> None:
    for keys in ((OLD, NEW), (NEW, OLD)):
        settings.AGS_ENCRYPTION_KEYS = keys
        reseal()
        snapshot.__init__()  # type: ignore[misc]
        assert nagra.present(nagra.token()).status_code == 200
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    snapshot.__init__()  # type: ignore[misc]
    assert nagra.present(nagra.token()).status_code == 200


def test_a_row_that_does_not_open_is_named_and_the_others_are_moved(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    Key.objects.for_tenant("nagra").update(sealed_secret=b"\x01 no such thing")
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("reseal", stdout=out)
    assert str(raised.value) == "no encryption key opens: nagra/nagra-key-1"
    assert raised.value.returncode == 1
    assert out.getvalue() == "3 resealed\n"
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert key_of(sunrise).secret() == sunrise.secret
