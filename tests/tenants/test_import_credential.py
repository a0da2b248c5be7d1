"""`manage.py import_credential`: the vendor's file becomes a key, and its secret is shown nowhere."""

from __future__ import annotations

import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from ags.sessions.models import Event
from tenants.models import Key
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.operators import add_public_key
from tests.support.upstream.signer import signer

SECRET = bytes(range(201, 233))
SIGNING_KEY = base64.b64encode(SECRET).decode()
CREDENTIAL: dict[str, Any] = {
    "tenantId": "nagra",
    "credentialName": "Head-end 1",
    "credentialId": "259629",
    "signingKey": SIGNING_KEY,
    "privilege": ["AUTHN"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credential.json"


def run(file: Path, content: Any, *options: str) -> str:
    """Return the output, and check that neither it nor an error contains the secret."""
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    out = io.StringIO()
    try:
        call_command("import_credential", str(file), *options, stdout=out)
    except CommandError as error:
        check_absent(str(error))
        raise
    check_absent(out.getvalue())
    return out.getvalue()


def check_absent(text: str) -> None:
    for secret in (SIGNING_KEY, SECRET.hex(), SECRET.decode("latin-1"), repr(SECRET)):
        assert secret[:20] not in text


def head_end_of(nagra: HeadEnd) -> HeadEnd:
    snapshot.invalidate("nagra")
    return HeadEnd("nagra", "259629", SECRET, client=nagra.client)


def test_a_key_is_staged_and_then_activated(nagra: HeadEnd, file: Path) -> None:
    assert run(file, CREDENTIAL).splitlines() == [
        "+ key nagra/259629: HS256, staged",
        'Not stored: credentialName, which is "Head-end 1".',
        "Not stored: privilege. AGS accepts the key in all services of the tenant that verify with shared "
        "secrets, and nowhere else.",
        "Delete the file: it contains the secret.",
    ]
    operator = head_end_of(nagra)
    assert operator.present(operator.token()).status_code == 401
    key = Key.unscoped.get(kid="259629")
    key.state = "active"
    key.save()
    operator = head_end_of(nagra)
    assert operator.present(operator.token()).status_code == 200


def test_a_key_is_active_at_once_if_required(nagra: HeadEnd, file: Path) -> None:
    assert run(file, CREDENTIAL, "--state", "active").startswith("+ key nagra/259629: HS256, active\n")
    operator = head_end_of(nagra)
    assert operator.present(operator.token()).status_code == 200
    with pytest.raises(CommandError, match="invalid choice"):
        run(file, CREDENTIAL, "--state", "revoked")


def test_from_standard_input(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(CREDENTIAL).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = io.StringIO()
    call_command("import_credential", "-", stdout=out)
    assert out.getvalue().startswith("+ key nagra/259629")
    assert "Delete the file" not in out.getvalue()


@pytest.mark.parametrize("state", ["staged", "active", "revoked"])
def test_importing_again_changes_nothing(nagra: HeadEnd, file: Path, state: str) -> None:
    run(file, CREDENTIAL)
    Key.unscoped.filter(kid="259629").update(state=state)
    before = list(Key.unscoped.values())
    assert f"key nagra/259629 is already imported; it is {state}" in run(file, CREDENTIAL)
    run(file, CREDENTIAL, "--state", "active")
    assert list(Key.unscoped.values()) == before


def test_the_secret_is_stored_nowhere_in_clear(
    nagra: HeadEnd, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run(file, CREDENTIAL)
    run(file, CREDENTIAL)
    check_absent(str([list(rows.values()) for rows in (Key.history.all(), Key.unscoped, Event.unscoped)]))
    check_absent(str([vars(record) for record in caplog.records]))
    assert Key.unscoped.get(kid="259629").secret() == SECRET


def test_optional_and_unknown_members(nagra: HeadEnd, file: Path) -> None:
    bare = {name: CREDENTIAL[name] for name in ("tenantId", "credentialId", "signingKey")}
    unknown = {"version": 2, "expires": None, SIGNING_KEY: 1}
    assert run(file, bare | unknown).splitlines() == [
        "+ key nagra/259629: HS256, staged",
        "Ignored members: expires, version, others.",
        "Delete the file: it contains the secret.",
    ]
    assert 'which is "\\u001b[31m"' in run(file, CREDENTIAL | {"credentialName": "\x1b[31m"})


def without(name: str) -> dict[str, Any]:
    return {member: value for member, value in CREDENTIAL.items() if member != name}


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not valid JSON: it is not well-formed JSON"),
    "an array": ([CREDENTIAL], "not a JSON object"),
    "a duplicate member": (
        json.dumps(CREDENTIAL).encode()[:-1] + b', "credentialId": "1"}',
        "not valid JSON: it has a duplicate member",
    ),
    "deep nesting": (b"[" * 50_000, "nested deeper"),
    "a megabyte": (json.dumps(CREDENTIAL).encode() + b" " * 2**20, "larger than 65,536 bytes"),
    "UTF-16": (json.dumps(CREDENTIAL).encode("utf-16"), "not UTF-8"),
    "no tenant": (without("tenantId"), "The member tenantId is missing"),
    "no credential ID": (without("credentialId"), "The member credentialId is missing"),
    "no key": (without("signingKey"), "The member signingKey is missing"),
    "a number as the credential ID": (CREDENTIAL | {"credentialId": 259629}, "credentialId must be a string"),
    "null as the key": (CREDENTIAL | {"signingKey": None}, "signingKey must be a string"),
    "a name that is no string": (CREDENTIAL | {"credentialName": 1}, "credentialName must be a string"),
    "a privilege that is no array": (CREDENTIAL | {"privilege": "AUTHN"}, "privilege must be an array"),
    "another tenant": (CREDENTIAL | {"tenantId": "nobody"}, "The tenant nobody of the file does not exist"),
    "a tenant that is the secret": (
        CREDENTIAL | {"tenantId": SIGNING_KEY},
        "The tenant of the file does not",
    ),
    "a credential ID that is the secret": (
        CREDENTIAL | {"credentialId": SIGNING_KEY},
        "The member credentialId: 1 to 128 letters",
    ),
    "no base64": (CREDENTIAL | {"signingKey": SIGNING_KEY[:-3] + "?"}, "not valid base64"),
    "base64url": (CREDENTIAL | {"signingKey": "-_" + SIGNING_KEY[2:]}, "not valid base64"),
    "a short key": (CREDENTIAL | {"signingKey": SIGNING_KEY[:40]}, "at least 32 bytes; this one has 30"),
    "a key of zeros": (CREDENTIAL | {"signingKey": "A" * 43 + "="}, "All bytes of the secret are the same"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_files(nagra: HeadEnd, file: Path, content: Any, message: str) -> None:
    with pytest.raises(CommandError) as raised:
        run(file, content)
    assert message in str(raised.value)
    assert Key.unscoped.get().kid == nagra.kid


def test_a_file_that_does_not_exist(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_credential", str(tmp_path / "none"))


def test_an_existing_key_is_not_replaced(nagra: HeadEnd, file: Path, settings: Any) -> None:
    with pytest.raises(CommandError, match=f"Key {nagra.kid} of nagra exists, with another secret"):
        run(file, CREDENTIAL | {"credentialId": nagra.kid})
    add_public_key(signer("ES256"))
    with pytest.raises(CommandError, match="Key ES256 of nagra exists, and is a public key"):
        run(file, CREDENTIAL | {"credentialId": "ES256"})
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(32, 64)),)
    with pytest.raises(CommandError, match="its secret cannot be decrypted"):
        run(file, CREDENTIAL | {"credentialId": nagra.kid})
    assert nagra.secret
