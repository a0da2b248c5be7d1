"""Keys of an operator that sign valid and invalid tokens."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import get_default_algorithms

ABSENT: Any = object()
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


def base64url(raw: bytes | str) -> str:
    return urlsafe_b64encode(raw if isinstance(raw, bytes) else raw.encode()).rstrip(b"=").decode()


def token(header: Any, claims: Any, sign: Any) -> str:
    """Return a compact JWS of any header and claims. `sign` returns the signature of its argument."""
    head, body = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signed = f"{base64url(head)}.{base64url(body)}"
    return f"{signed}.{base64url(sign(signed.encode()))}"


def apply_changes(valid: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return changed members. Functions are called with the current time; ABSENT removes a member."""
    late = {name: value(time.time()) if callable(value) else value for name, value in changes.items()}
    return {name: value for name, value in (valid | late).items() if value is not ABSENT}


@dataclass(frozen=True)
class Signer:
    """A private key, under a `kid` and one algorithm."""

    kid: str
    algorithm: str
    private: Any

    def signature(self, signed: bytes, algorithm: str = "") -> bytes:
        return get_default_algorithms()[algorithm or self.algorithm].sign(signed, self.private)

    def token(self, claims: Any, **header: Any) -> str:
        """Return a token. The header can be changed like the claims."""
        names = {name.replace("__", "#"): value for name, value in header.items()}
        return token(apply_changes({"alg": self.algorithm, "kid": self.kid}, names), claims, self.signature)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key as a JWK."""
        public = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return apply_changes({**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}, changes)

    @property
    def private_jwk(self) -> dict[str, Any]:
        return {
            **get_default_algorithms()[self.algorithm].to_jwk(self.private, as_dict=True),
            "kid": self.kid,
        }

    @property
    def pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def private_pem(self) -> str:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def certificate(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
        builder = builder.public_key(self.private.public_key()).serial_number(1)
        builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
        hash_token = None if self.algorithm == "EdDSA" else hashes.SHA256()
        return builder.sign(self.private, hash_token).public_bytes(Encoding.PEM).decode()


@cache
def signer(algorithm: str, kid: str = "", *, bits: int = 2048, curve: Any = ec.SECP256R1) -> Signer:
    """Return the signer of an algorithm and a `kid`, which is the name of the algorithm by default."""
    makers = {
        "ES256": lambda: ec.generate_private_key(curve()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    rsa_key = lambda: rsa.generate_private_key(65537, bits)  # noqa: E731
    return Signer(kid or algorithm, algorithm, makers.get(algorithm, rsa_key)())


def sign_with_secret(secret: bytes) -> Any:
    """Return a function that signs with HS256 and this secret."""
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()
