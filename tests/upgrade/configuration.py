"""The configuration of an installation: two tenants, services of every strategy, and keys of every state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.clients import SERVICE, TRIAL

ISSUER, AUDIENCE, SIGNED_JWT_KID = "https://login.operator.example", "ags", "operator-key-1"

CLOSED_PORT = "https://127.0.0.1:9"
"""An upstream that refuses connections."""


def make_configuration(public_key: Mapping[str, Any], certificate: str, *, final: bool) -> dict[str, Any]:
    """Return the file for `apply`: two tenants with services of every strategy and keys of every state.

    The final configuration, which the server sees at the end, disables a service and revokes a key.
    """
    nagra = {
        "id": "nagra",
        "name": "Nagra",
        "access_token_ttl": 1800,
        "refresh_token_ttl": 86_400,
        "sign_on_ttl": 864_000,
        "refresh_grace": 1,
        "issuer": "https://ags.nagra.example",
        "audience": "https://api.nagra.example",
        "allowed_origins": ["https://tv.nagra.example", "http://localhost:3000"],
        "services": [
            *_services_of_every_strategy(public_key, certificate),
            _service("Closed", "operator_token") | {"enabled": not final},
        ],
        "keys": [
            _key("active", "HS256", "active"),
            _key("retiring", "HS384", "retiring", not_before="2020-01-01T00:00:00Z"),
            _key("staged", "HS256", "staged", not_after="2199-12-31T23:59:59+01:00"),
            _key("revoked", "HS256", "revoked" if final else "active"),
        ],
    }
    sunrise = {
        "id": "sunrise",
        "name": "Sunrise",
        "device_limit": 1,
        "access_token_ttl": 3600,
        "refresh_token_ttl": 172_800,
        "sign_on_ttl": 7_776_000,
        "signing_algorithm": "HS256",
        "services": [_service(SERVICE, "operator_token", session_token_ttl=3600, replay="required")],
        "keys": [_key("active", "HS512", "active", tenant="sunrise")],
    }
    return {"tenants": [nagra, sunrise]}


def _services_of_every_strategy(public_key: Mapping[str, Any], certificate: str) -> list[dict[str, Any]]:
    authority = {"ca_certificates": certificate}
    return [
        _service(SERVICE, "operator_token", session_token_ttl=3600, clock_skew=60),
        _service(TRIAL, "dummy"),
        _service("Trial with a passphrase", "dummy", passphrase={"env": "PASSPHRASE"}),
        _service(
            "Signed JWT",
            "signed_jwt",
            keys_from="entered",
            public_keys=json.dumps({"keys": [public_key]}),
            issuer=ISSUER,
            audience=AUDIENCE,
        ),
        _service(
            "Signed JWT by address",
            "signed_jwt",
            key_set_address=f"{CLOSED_PORT}/keys",
            issuer=ISSUER,
            audience=AUDIENCE,
            required_claims="email_verified=true\nplan=gold",
            **authority,
        ),
        _service(
            "ID token",
            "oidc_id_token",
            issuer=CLOSED_PORT,
            client_id="television",
            trusted_clients="tablet\nphone",
            algorithms=["RS256", "ES256"],
        ),
        _service(
            "Access token of the operator",
            "token_introspection",
            address=f"{CLOSED_PORT}/introspect",
            client_id="ags",
            client_secret={"env": "CLIENT_SECRET"},
            scope="television",
        ),
        _service(
            "Login",
            "operator_login",
            address=f"{CLOSED_PORT}/login",
            user="ags",
            secret={"env": "LOGIN_SECRET"},
            encryption="decrypt",
            private_key={"env": "LOGIN_PRIVATE_KEY"},
            **authority,
        ),
        _service(
            "Directory",
            "ldap",
            host="127.0.0.1",
            port=9,
            bind_dn="cn=ags,ou=services,dc=operator,dc=example",
            bind_password={"env": "LDAP_PASSWORD"},
            search_base="ou=people,dc=operator,dc=example",
            user_filter="(&(objectClass=person)(uid={username}))",
            status_attribute="employeeType",
            suspended_value="suspended",
            **authority,
        ),
        _service("Subscribers", "radius", host="127.0.0.1", port=9, shared_secret={"env": "RADIUS_SECRET"}),
        _service(
            "Lines",
            "radius",
            mode="line",
            host="127.0.0.1",
            port=9,
            shared_secret={"env": "RADIUS_SECRET"},
            line_secret={"env": "LINE_SECRET"},
            line_password={"env": "LINE_PASSWORD"},
            account_attribute="CHARGEABLE_USER_IDENTITY",
        ),
    ]


def _service(name: str, strategy: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "strategy": strategy,
        "display_name": f"{name} \u2013 f\u00fcr alle",
        "logo": "https://operator.example/logo.png",
        "enabled": True,
        "settings": settings,
    }


def _key(name: str, algorithm: str, state: str, *, tenant: str = "nagra", **dates: str) -> dict[str, Any]:
    secret = {"env": f"{tenant}_{name}".upper()}
    return {"kid": f"{tenant}-{name}", "algorithm": algorithm, "state": state, "secret": secret, **dates}


def to_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def create_certificate() -> str:
    """Return the certificate of an authority, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of an operator")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2126, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()
