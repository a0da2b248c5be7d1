"""Keys of an operator that sign tokens, right ones and wrong ones."""

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


def b64(raw: bytes | str) -> str:
    return urlsafe_b64encode(raw if isinstance(raw, bytes) else raw.encode()).rstrip(b"=").decode()


def token(header: Any, claims: Any, sign: Any) -> str:
    """A compact JWS over anything; `sign` makes the signature of what is signed."""
    head, body = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signed = f"{b64(head)}.{b64(body)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def changed(good: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Those members, with changes: a function of the time now is called, ABSENT leaves a member out."""
    late = {name: value(time.time()) if callable(value) else value for name, value in changes.items()}
    return {name: value for name, value in (good | late).items() if value is not ABSENT}


@dataclass(frozen=True)
class Signer:
    """A private key, under a `kid` and one algorithm."""

    kid: str
    algorithm: str
    private: Any

    def signature(self, signed: bytes, algorithm: str = "") -> bytes:
        return get_default_algorithms()[algorithm or self.algorithm].sign(signed, self.private)

    def token(self, claims: Any, **header: Any) -> str:
        """A token; members of the header change as those of the claims do."""
        names = {name.replace("__", "#"): value for name, value in header.items()}
        return token(changed({"alg": self.algorithm, "kid": self.kid}, names), claims, self.signature)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key, as a key set has it."""
        public = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return changed({**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}, changes)

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
    """The signer of that algorithm and `kid`, which is the algorithm itself unless said otherwise."""
    makers = {
        "ES256": lambda: ec.generate_private_key(curve()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    rsa_key = lambda: rsa.generate_private_key(65537, bits)  # noqa: E731
    return Signer(kid or algorithm, algorithm, makers.get(algorithm, rsa_key)())


def shared(secret: bytes) -> Any:
    """Sign with HS256 and that secret."""
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()
