"""A certificate authority for loopback addresses."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers.upstream.tls import SSLSocket


class Authority:
    """Issues a certificate for `localhost` and the loopback addresses. Other programs use its files.

    With an `issuer` it is an intermediate authority. If `sends_itself`, servers also send its certificate.
    """

    def __init__(self, issuer: Authority | None = None, *, sends_itself: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ags-tests-authority-"))
        self._key = ec.generate_private_key(ec.SECP256R1())
        kind = "Intermediate authority" if issuer else "Authority"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} of the tests")])
        above = issuer._certificate.subject if issuer else name
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        own = _builder(above, name, self._key.public_key()).add_extension(constraints, critical=True)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        own = own.add_extension(usage, critical=True).add_extension(identifier, critical=False)
        if issuer:
            key_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer._key.public_key())
            own = own.add_extension(key_identifier, critical=False)
        self._certificate: x509.Certificate = own.sign((issuer or self)._key, hashes.SHA256())
        self.certificate: str = self._certificate.public_bytes(Encoding.PEM).decode()
        self.file = self.folder / "authority.pem"
        self.file.write_text(self.certificate)
        self.server_certificate, self.server_key = self._issue()
        if sends_itself:
            with self.server_certificate.open("a") as chain:
                chain.write(self.certificate)

    def _issue(self) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName(
            [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1")),
            ]
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = _builder(self._certificate.subject, subject, key.public_key())
        builder = builder.add_extension(names, critical=False).add_extension(issuer, critical=False)
        certificate = self.folder / "server.pem"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private = self.folder / "server.key"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private

    def server_context(self) -> ssl.SSLContext:
        """Return the SSL context of a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sslsocket_class = SSLSocket
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
    )


@cache
def authority() -> Authority:
    """Return the authority that the services of the tests trust."""
    return Authority()


@cache
def untrusted_authority() -> Authority:
    """Return an authority that no service trusts."""
    return Authority()
