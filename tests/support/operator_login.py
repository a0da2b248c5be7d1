"""The provider `operator_login`: settings, keys and results."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from providers.contract import Choice, FailureReason, Identity, KeyRing, VerificationFailed
from providers.operator_login.strategy import OperatorLogin
from tenants.services.settings import clean_settings
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG, LONGEST
from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply, as_json

RING = KeyRing("nagra", {})
MARKER = "marker4711"
SECRET = f"a secret: {MARKER} ü"
ONE = {"accountId": "account-1", "accountInformation": "Home"}


def pem(key: Any, encryption: Any = None) -> str:
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return raw.decode()


KEY = rsa.generate_private_key(65537, 2048)
PEM = pem(KEY)


def stored(**settings: Any) -> dict[str, Any]:
    good = {"address": "https://localhost/login", "user": "ags", "secret": SECRET}
    return good | {"ca_certificates": authority().certificate, "deadline": LONGEST} | settings


def cleaned_settings(**settings: Any) -> Any:
    return {**clean_settings(OperatorLogin(), stored(**settings))[1], "deadline": LONG}


def verify(server: HTTPSServer, username: str, password: str, **settings: Any) -> Identity | Choice:
    strategy = OperatorLogin()
    cleaned = cleaned_settings(address=f"{server.url}/login", **settings)
    return strategy.verify({"Username": username, "Password": password}, cleaned, RING)


def get_reason(server: HTTPSServer, username: str, password: str, **settings: Any) -> FailureReason:
    with pytest.raises(VerificationFailed) as raised:
        verify(server, username, password, **settings)
    assert raised.value.claim is None
    return raised.value.reason


def accounts(*values: Any) -> Reply:
    return as_json({"accounts": list(values)})


# As client apps encrypt.
PADDED = {
    "oaep_sha256": OAEP(MGF1(SHA256()), SHA256(), None),
    "oaep_sha256_mgf1_sha1": OAEP(MGF1(SHA1()), SHA256(), None),
    "oaep_sha1": OAEP(MGF1(SHA1()), SHA1(), None),
    "pkcs1v15": PKCS1v15(),
}


def encrypted(password: bytes, padding: str, key: rsa.RSAPrivateKey = KEY) -> str:
    return base64.b64encode(key.public_key().encrypt(password, PADDED[padding])).decode()


def accepts_one_password(request: ReceivedRequest) -> Reply:
    """An endpoint that accepts one password for any username."""
    right = json.loads(request.body)["password"] == "ännas password"
    return accounts(ONE) if right else as_json({"reason": "invalid_credentials"}, 401)
