"""What operators enter and keep in files, from the reports in tests/cases."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError, call_command
from django.test import Client

from providers.registry import strategies
from tenants.models import Service
from tests.conftest import HeadEnd
from tests.upstream.authority import authority
from tests.upstream.signer import signer

CASES = Path(__file__).parent.parent / "cases"

NEEDED: dict[str, dict[str, Any]] = {
    "operator_login": {"address": "https://idp.example/login", "authentication": "none"},
    "signed_jwt": {"keys_from": "entered", "issuer": "https://idp.example", "audience": "ags"},
}

Enter = Callable[..., str]
"""Enters settings of a service of that strategy, and returns what is wrong with them, or nothing."""


@pytest.fixture(params=["admin", "apply"])
def enter(request: Any, nagra: HeadEnd, admin_client: Client, tmp_path: Path) -> Enter:
    def in_the_admin(strategy: str, **settings: Any) -> str:
        declared = strategies()[strategy].Settings.base_fields
        fields = {name: field.initial for name, field in declared.items() if field.initial is not None}
        fields |= {**NEEDED[strategy], **settings}
        form = {f"settings-{name}": value for name, value in fields.items()}
        page = f"/admin/tenants/service/add/?tenant=nagra&strategy={strategy}"
        answer = admin_client.post(page, {"name": "Field", "display_name": "x", "enabled": "on", **form})
        if answer.status_code == 302:
            return ""
        return str(answer.context["adminform"].form.errors.get_json_data())

    def by_a_file(strategy: str, **settings: Any) -> str:
        service = {"name": "Field", "strategy": strategy, "display_name": "x", "enabled": True}
        service["settings"] = {**NEEDED[strategy], **settings}
        file = tmp_path / "tenants.yaml"
        file.write_text(yaml.safe_dump({"tenants": [{"id": "nagra", "services": [service]}]}))
        try:
            call_command("apply", str(file))
        except CommandError as mistake:
            return str(mistake)
        again = io.StringIO()
        call_command("apply", str(file), stdout=again)
        assert again.getvalue() == "nothing to do\n"
        return ""

    return in_the_admin if request.param == "admin" else by_a_file


def stored(setting: str) -> Any:
    return Service.objects.for_tenant("nagra").get(name="Field").settings[setting]


@pytest.mark.parametrize("file", ["ca-bom.pem", "ca-comment.pem"])
def test_06_of_certificates_only_the_pem_blocks_are_read(enter: Enter, file: str) -> None:
    text = (CASES / "06-ca-certificates-not-ascii" / file).read_text()
    both = f"{text}Küche\n{authority().certificate}\nKüche"
    assert enter("operator_login", ca_certificates=both) == ""
    kept = stored("ca_certificates")
    assert kept.isascii()
    assert kept.count("-----BEGIN CERTIFICATE-----") == kept.count("-----END CERTIFICATE-----") == 2


BLOCK = authority().certificate.strip()
RUBBISH = {
    "no block": "Küche",
    "an umlaut in a block": BLOCK[:60] + "ü" + BLOCK[61:],
    "no end": BLOCK.removesuffix("-----END CERTIFICATE-----") + "ü",
    "the end of another": BLOCK.replace("END CERTIFICATE", "END PUBLIC KEY"),
}


@pytest.mark.parametrize("text", RUBBISH.values(), ids=RUBBISH)
def test_06_rubbish_gets_a_message_at_the_field(enter: Enter, text: str) -> None:
    told = enter("operator_login", ca_certificates=text)
    assert "ca_certificates" in told
    assert "This is no certificate in PEM." in told


PRIVATE = rsa.generate_private_key(65537, 2048)
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a private key": ("operator_login", {"encryption": "decrypt"}, "private_key"),
    "public keys": ("signed_jwt", {"key_id": "k1"}, "public_keys"),
}


@pytest.mark.parametrize("text", ["Küche", '{"kty": "Küche"}', "-----BEGIN PUBLIC KEY-----\nü\n"])
@pytest.mark.parametrize(("strategy", "settings", "name"), OTHERS.values(), ids=OTHERS)
def test_06_so_does_rubbish_in_other_fields(
    enter: Enter, strategy: str, settings: dict[str, Any], name: str, text: str
) -> None:
    assert name in enter(strategy, **settings, **{name: text})


PASTED = ["{}", "\ufeff{}", "\n\n {} \n\n", "\ufeff\n{}\r\n"]


@pytest.mark.parametrize("pasted", PASTED, ids=ascii)
def test_06_a_private_key_may_be_pasted_with_what_surrounds_it(enter: Enter, pasted: str) -> None:
    settings = {"encryption": "decrypt", "private_key": pasted.replace("{}", PRIVATE_PEM)}
    assert enter("operator_login", **settings) == ""


@pytest.mark.parametrize("pasted", PASTED, ids=ascii)
def test_06_so_may_public_keys(enter: Enter, pasted: str) -> None:
    key_set = json.dumps({"keys": [signer("RS256", "k1").jwk()]})
    assert enter("signed_jwt", public_keys=pasted.replace("{}", key_set)) == ""
