"""A service with an upstream in the admin: its secrets, documents and configuration check."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError, call_command
from django.test import Client

from tenants.models import DocumentHealth, Service
from tests.support.clients import HeadEnd
from tests.support.upstream.authority import authority
from tests.support.upstream.https import HTTPSServer, Reply, as_json

NAME = "Signed"


def jwks() -> Any:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()

    def encode(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    return {
        "keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": encode(numbers.x), "y": encode(numbers.y)}]
    }


@pytest.fixture
def upstream() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = as_json(jwks())
        yield running


@pytest.fixture
def service(nagra: HeadEnd, upstream: HTTPSServer) -> Service:
    service = Service(
        tenant_id="nagra",
        name=NAME,
        strategy="signed_jwt",
        display_name="x",
        enabled=True,
        settings={
            "keys_from": "address",
            "key_set_address": f"{upstream.url}/keys",
            "issuer": "https://login.example",
            "audience": "ags",
            "ca_certificates": authority().certificate,
        },
    )
    service.save()
    return service


def check() -> str:
    out = io.StringIO()
    try:
        call_command("checkservice", "nagra", NAME, stdout=out)
    except CommandError as error:
        out.write(f"{error}\n")
    return out.getvalue()


def test_a_check_reports_keys_and_errors_and_the_page_shows_the_latest_fetch(
    admin_client: Client, service: Service, upstream: HTTPSServer
) -> None:
    page = f"/admin/tenants/service/{service.pk}/change/"
    assert "Not fetched yet: no request has needed it." in admin_client.get(page).content.decode()
    assert "k1 (ES256)" in check()
    shown = admin_client.get(page).content.decode()
    assert f"{upstream.url}/keys" in shown
    assert "Last fetched at" in shown
    upstream.replies["/keys"] = Reply(302, headers={"Location": "/elsewhere"})
    output = check()
    assert "BAD" in output
    assert "it redirects, which AGS does not follow" in output
    shown = admin_client.get(page).content.decode()
    assert "failed: it redirects, which AGS does not follow." in shown
    assert "Last fetched at" in shown
    row = DocumentHealth.objects.for_tenant("nagra").get()
    assert row.good_at is not None


@pytest.mark.parametrize("allowed", ["", "10.0.0.0/8"])
def test_a_private_address_is_reported(service: Service, settings: Any, allowed: str) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network(allowed)] if allowed else []
    assert "its address is private, and AGS_PRIVATE_UPSTREAMS does not allow it" in check()


def test_a_private_key_is_entered_with_line_breaks_and_never_shown(
    admin_client: Client, nagra: HeadEnd
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    add = "/admin/tenants/service/add/?tenant=nagra&strategy=operator_login"
    assert '<textarea name="settings-private_key"' in admin_client.get(add).content.decode()
    form = {
        "name": "Login",
        "display_name": "Log in",
        "logo": "",
        "enabled": "on",
        "settings-address": "https://login.example/",
        "settings-authentication": "none",
        "settings-encryption": "decrypt",
        "settings-padding": "oaep_sha256",
        "settings-private_key": pem.replace("\n", "\r\n"),
        "settings-deadline": "3",
    }
    invalid = admin_client.post(add, {**form, "settings-deadline": "99"}).content.decode()
    assert "BEGIN PRIVATE KEY" not in invalid
    assert admin_client.post(add, form).status_code == 302
    stored = Service.unscoped.get(name="Login")
    assert "BEGIN PRIVATE KEY" in stored.settings_with_secrets()["private_key"]
    shown = admin_client.get(f"/admin/tenants/service/{stored.pk}/change/").content.decode()
    assert "BEGIN PRIVATE KEY" not in shown
    assert stored.settings["private_key"].startswith("sealed:")
