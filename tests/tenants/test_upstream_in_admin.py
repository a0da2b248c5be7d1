"""A service that asks an upstream, as staff meet it: its secrets, its documents, and a try."""

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
from tests.conftest import HeadEnd
from tests.upstream.authority import authority
from tests.upstream.https import HTTPSServer, Reply, as_json

NAME = "Signed"


def key_set() -> Any:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()

    def text(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": text(numbers.x), "y": text(numbers.y)}]}


@pytest.fixture
def upstream() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = as_json(key_set())
        yield running


@pytest.fixture
def service(nagra: HeadEnd, upstream: HTTPSServer) -> Service:
    made = Service(
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
    made.save()
    return made


def check() -> str:
    out = io.StringIO()
    try:
        call_command("checkservice", "nagra", NAME, stdout=out)
    except CommandError as error:
        out.write(f"{error}\n")
    return out.getvalue()


def test_a_try_says_which_keys_were_found_or_what_is_wrong_and_the_page_remembers(
    admin_client: Client, service: Service, upstream: HTTPSServer
) -> None:
    page = f"/admin/tenants/service/{service.pk}/change/"
    assert "Not fetched yet: nobody has needed it." in admin_client.get(page).content.decode()
    assert "k1 (ES256)" in check()
    shown = admin_client.get(page).content.decode()
    assert f"{upstream.url}/keys" in shown
    assert "Last fetched at" in shown
    upstream.replies["/keys"] = Reply(302, headers={"Location": "/elsewhere"})
    told = check()
    assert "BAD" in told
    assert "it redirects, which AGS does not follow" in told
    shown = admin_client.get(page).content.decode()
    assert "has failed: it redirects, which AGS does not follow." in shown
    assert "Last fetched at" in shown
    row = DocumentHealth.objects.for_tenant("nagra").get()
    assert row.good_at is not None


@pytest.mark.parametrize("allowed", ["", "10.0.0.0/8"])
def test_a_private_address_is_said_to_be_one(service: Service, settings: Any, allowed: str) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network(allowed)] if allowed else []
    assert "its address is private, and AGS_PRIVATE_UPSTREAMS does not allow it" in check()


def test_a_private_key_is_pasted_with_its_lines_and_never_comes_back(
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
    refused = admin_client.post(add, {**form, "settings-deadline": "99"}).content.decode()
    assert "BEGIN PRIVATE KEY" not in refused
    assert admin_client.post(add, form).status_code == 302
    stored = Service.unscoped.get(name="Login")
    assert "BEGIN PRIVATE KEY" in stored.settings_with_secrets()["private_key"]
    shown = admin_client.get(f"/admin/tenants/service/{stored.pk}/change/").content.decode()
    assert "BEGIN PRIVATE KEY" not in shown
    assert stored.settings["private_key"].startswith("sealed:")
