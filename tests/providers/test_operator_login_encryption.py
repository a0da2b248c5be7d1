"""The provider `operator_login` with encrypted passwords."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from providers.contract import FailureReason, Identity
from tests.support.operator_login import (
    ONE,
    PADDED,
    PEM,
    accepts_one_password,
    accounts,
    encrypted,
    get_reason,
    verify,
)
from tests.support.upstream.https import HTTPSServer

OTHER_KEY = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("padding", PADDED)
def test_an_encrypted_password_is_decrypted_and_forwarded(server: HTTPSServer, padding: str) -> None:
    server.replies["/login"] = accepts_one_password
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = encrypted("ännas password".encode(), padding)
    lines = "\r\n".join(sent[at : at + 76] for at in range(0, len(sent), 76))
    for spelling in (sent, lines, sent + "\n"):
        assert verify(server, "anna", spelling, **settings) == Identity("account-1")


def beginning_with_zero(password: bytes, padding: str) -> bytes:
    """Return a ciphertext whose first octet is zero (about 1 of 200)."""
    for _ in range(20_000):
        if (sent := base64.b64decode(encrypted(password, padding)))[0] == 0:
            return sent
    raise AssertionError("no such ciphertext")


@pytest.mark.parametrize("padding", PADDED)
def test_leading_zero_octets_of_a_ciphertext_may_be_omitted(server: HTTPSServer, padding: str) -> None:
    server.replies["/login"] = accepts_one_password
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = beginning_with_zero("ännas password".encode(), padding)
    for octets in (sent, sent.lstrip(b"\0")):
        assert verify(server, "anna", base64.b64encode(octets).decode(), **settings) == Identity("account-1")


def test_an_encrypted_password_is_forwarded_unchanged_if_the_operator_decrypts(server: HTTPSServer) -> None:
    server.replies["/login"] = accounts(ONE)
    sent = encrypted(b"p", "pkcs1v15")
    verify(server, "anna", sent, encryption="pass_on", padding="pkcs1v15", private_key=PEM)
    assert json.loads(server.requests[0].body)["password"] == sent


def longer(sent: str) -> str:
    return base64.b64encode(b"\x00" + base64.b64decode(sent)).decode()


# Values that cannot be decrypted.
UNDECRYPTABLE: dict[str, Callable[[str], str]] = {
    "of another key": lambda padding: encrypted(b"p", padding, OTHER_KEY),
    "of another padding": lambda padding: encrypted(
        b"p", "oaep_sha1" if padding == "oaep_sha256" else "oaep_sha256"
    ),
    "random": lambda _: base64.b64encode(bytes([0]) + os.urandom(255)).decode(),
    "zero": lambda _: base64.b64encode(bytes(256)).decode(),
    "more than the modulus": lambda _: base64.b64encode(b"\xff" * 256).decode(),
    "too short": lambda _: base64.b64encode(b"p").decode(),
    "without its last octet": lambda padding: base64.b64encode(
        base64.b64decode(encrypted("ännas password".encode(), padding))[:-1]
    ).decode(),
    "too long": lambda padding: longer(encrypted(b"p", padding)),
    "not encrypted": lambda _: "ännas password",
    "no base64": lambda padding: encrypted(b"p", padding)[:-3],
    "a character outside base64": lambda padding: "!" + encrypted("ännas password".encode(), padding),
    "base64url": lambda _: "-_" * 128,
    "no UTF-8": lambda padding: encrypted(b"\xff\xfe", padding),
    "empty": lambda padding: encrypted(b"", padding),
    "spaces": lambda _: " ",
}


@pytest.mark.parametrize("padding", PADDED)
@pytest.mark.parametrize("case", UNDECRYPTABLE)
def test_an_undecryptable_password_is_handled_like_a_wrong_password(
    server: HTTPSServer, case: str, padding: str
) -> None:
    """A random password is sent to the operator, so that invalid padding has the same result."""
    server.replies["/login"] = accepts_one_password
    settings = {"encryption": "decrypt", "padding": padding, "private_key": PEM}
    sent = UNDECRYPTABLE[case](padding)
    assert (
        get_reason(server, "anna", encrypted(b"wrong", padding), **settings)
        is FailureReason.CREDENTIAL_UNKNOWN
    )
    for _ in range(2):
        assert get_reason(server, "anna", sent, **settings) is FailureReason.CREDENTIAL_UNKNOWN
    wrong, *junk = [json.loads(request.body)["password"] for request in server.requests]
    assert (wrong, len(junk)) == ("wrong", 2)
    for password in junk:
        assert password
        assert password not in {sent, "p", "ännas password"}


@pytest.mark.parametrize("between", ["\n", "\r\n", " ", ""], ids=repr)
def test_a_key_may_lack_line_breaks(server: HTTPSServer, between: str) -> None:
    """Browsers remove line breaks from text that is pasted into an input of one line."""
    server.replies["/login"] = accepts_one_password
    settings = {"encryption": "decrypt", "private_key": PEM.replace("\n", between)}
    sent = encrypted("ännas password".encode(), "oaep_sha256")
    assert verify(server, "anna", sent, **settings) == Identity("account-1")
