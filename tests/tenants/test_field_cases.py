"""Input from operators' reports (tests/cases): in the admin and in configuration files."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError
from django.test import Client

from providers.registry import strategies
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.configuration import apply_tenant as apply
from tests.support.upstream.authority import authority
from tests.support.upstream.signer import signer

CASES = Path(__file__).parent.parent / "cases"

REQUIRED: dict[str, dict[str, Any]] = {
    "operator_login": {"address": "https://idp.example/login", "authentication": "none"},
    "signed_jwt": {"keys_from": "entered", "issuer": "https://idp.example", "audience": "ags"},
}

Enter = Callable[..., str]
"""Creates a service with a strategy and settings; returns the error message, or an empty string."""


@pytest.fixture(params=["admin", "apply"])
def enter(request: Any, nagra: HeadEnd, admin_client: Client, tmp_path: Path) -> Enter:
    def enter_in_admin(strategy: str, **settings: Any) -> str:
        declared = strategies()[strategy].Settings.base_fields
        fields = {name: field.initial for name, field in declared.items() if field.initial is not None}
        fields |= {**REQUIRED[strategy], **settings}
        form = {f"settings-{name}": value for name, value in fields.items()}
        page = f"/admin/tenants/service/add/?tenant=nagra&strategy={strategy}"
        response = admin_client.post(page, {"name": "Field", "display_name": "x", "enabled": "on", **form})
        if response.status_code == 302:
            return ""
        return str(response.context["adminform"].form.errors.get_json_data())

    def enter_in_file(strategy: str, **settings: Any) -> str:
        service = {"name": "Field", "strategy": strategy, "display_name": "x", "enabled": True}
        service["settings"] = {**REQUIRED[strategy], **settings}
        try:
            apply(tmp_path, services=[service])
        except CommandError as error:
            return str(error)
        assert apply(tmp_path, services=[service]) == "nothing to do\n"
        return ""

    return enter_in_admin if request.param == "admin" else enter_in_file


def stored(setting: str) -> Any:
    return Service.objects.for_tenant("nagra").get(name="Field").settings[setting]


@pytest.mark.parametrize("file", ["ca-bom.pem", "ca-comment.pem"])
def test_06_text_around_pem_certificates_is_ignored(enter: Enter, file: str) -> None:
    text = (CASES / "06-ca-certificates-not-ascii" / file).read_text()
    pasted = f"{text}Küche\n{authority().certificate}\nKüche"
    assert enter("operator_login", ca_certificates=pasted) == ""
    certificates = stored("ca_certificates")
    assert certificates.isascii()
    assert (
        certificates.count("-----BEGIN CERTIFICATE-----")
        == certificates.count("-----END CERTIFICATE-----")
        == 2
    )


BLOCK = authority().certificate.strip()
NOT_CERTIFICATES = {
    "no block": "Küche",
    "an umlaut in a block": BLOCK[:60] + "ü" + BLOCK[61:],
    "no end": BLOCK.removesuffix("-----END CERTIFICATE-----") + "ü",
    "the end of another": BLOCK.replace("END CERTIFICATE", "END PUBLIC KEY"),
}


@pytest.mark.parametrize("text", NOT_CERTIFICATES.values(), ids=NOT_CERTIFICATES)
def test_06_invalid_certificates_are_reported_at_their_field(enter: Enter, text: str) -> None:
    message = enter("operator_login", ca_certificates=text)
    assert "ca_certificates" in message
    assert "Enter certificates in PEM." in message


PRIVATE = rsa.generate_private_key(65537, 2048)
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
OTHER_FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a private key": ("operator_login", {"encryption": "decrypt"}, "private_key"),
    "public keys": ("signed_jwt", {"key_id": "k1"}, "public_keys"),
}


@pytest.mark.parametrize("text", ["Küche", '{"kty": "Küche"}', "-----BEGIN PUBLIC KEY-----\nü\n"])
@pytest.mark.parametrize(("strategy", "settings", "name"), OTHER_FIELDS.values(), ids=OTHER_FIELDS)
def test_06_other_invalid_keys_are_reported_at_their_field(
    enter: Enter, strategy: str, settings: dict[str, Any], name: str, text: str
) -> None:
    assert name in enter(strategy, **settings, **{name: text})


PASTED = ["{}", "\ufeff{}", "\n\n {} \n\n", "\ufeff\n{}\r\n"]


@pytest.mark.parametrize("pasted", PASTED, ids=ascii)
def test_06_a_private_key_may_be_pasted_with_surrounding_white_space(enter: Enter, pasted: str) -> None:
    settings = {"encryption": "decrypt", "private_key": pasted.replace("{}", PRIVATE_PEM)}
    assert enter("operator_login", **settings) == ""


@pytest.mark.parametrize("pasted", PASTED, ids=ascii)
def test_06_public_keys_may_be_pasted_with_surrounding_white_space(enter: Enter, pasted: str) -> None:
    key_set = json.dumps({"keys": [signer("RS256", "k1").jwk()]})
    assert enter("signed_jwt", public_keys=pasted.replace("{}", key_set)) == ""


SECRETS = CASES / "11-secret-with-newline"
SECRET = (SECRETS / "secret.txt").read_text()
VARIABLES = {
    "BYTE_ORDER_MARK": f"\ufeff{SECRET}",
    "LINE": f"{SECRET}\n",
    "LINES": f"{SECRET}\r\n\n",
    "BASE64": f"\ufeff{base64.b64encode(SECRET.encode()).decode()}\n",
    "EMPTY": "\ufeff\r\n",
}
REFERENCES: dict[str, dict[str, str]] = {
    **{path.name: {"file": str(path)} for path in sorted(SECRETS.glob("*.txt"))},
    **{name: {"env": name} for name in ("BYTE_ORDER_MARK", "LINE", "LINES")},
    "BASE64": {"env": "BASE64", "encoding": "base64"},
    "text": {"text": f"\ufeff{SECRET}\n"},
}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def key(secret: dict[str, str]) -> dict[str, Any]:
    return {"kid": "field", "state": "active", "secret": secret}


def login(**settings: Any) -> dict[str, Any]:
    rules = {"address": "https://idp.example/login", "authentication": "basic", "user": "ags", **settings}
    return {"name": "Field", "strategy": "operator_login", "display_name": "x", "settings": rules}


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_11_a_byte_order_mark_and_line_ends_are_stripped_from_the_secret_of_a_key(
    nagra: HeadEnd, tmp_path: Path, reference: dict[str, str]
) -> None:
    assert apply(tmp_path, keys=[key(reference)]) == "+ key nagra/field\n"
    assert apply(tmp_path, keys=[key(reference)]) == "nothing to do\n"
    operator = HeadEnd("nagra", "field", SECRET.encode())
    assert operator.present(operator.token()).status_code == 200


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_11_they_are_stripped_from_a_secret_setting(
    nagra: HeadEnd, tmp_path: Path, reference: dict[str, str]
) -> None:
    assert apply(tmp_path, services=[login(secret=reference)]) == "+ service nagra/Field\n"
    assert apply(tmp_path, services=[login(secret=reference)]) == "nothing to do\n"
    assert Service.objects.for_tenant("nagra").get(name="Field").settings_with_secrets()["secret"] == SECRET


@pytest.mark.usefixtures("variables")
def test_11_a_variable_with_only_white_space_counts_as_not_set(nagra: HeadEnd, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="the variable EMPTY is not set"):
        apply(tmp_path, keys=[key({"env": "EMPTY"})])


def test_11_they_are_stripped_in_the_admin(admin_client: Client, nagra: HeadEnd) -> None:
    form = {"tenant": "nagra", "kid": "field", "algorithm": "HS256", "state": "active", "source": "enter"}
    entered = {"encoding": "text", "secret": f"\ufeff{SECRET}\r\n"}
    assert admin_client.post("/admin/tenants/key/add/", {**form, **entered}).status_code == 302
    operator = HeadEnd("nagra", "field", SECRET.encode())
    assert operator.present(operator.token()).status_code == 200


def test_11_a_placeholder_with_white_space_does_not_move_the_stored_secret(
    nagra: HeadEnd, tmp_path: Path
) -> None:
    apply(tmp_path, services=[login(secret=SECRET)])
    moved = login(address="https://elsewhere.example/", secret={"text": "sealed:00000000\n"})
    with pytest.raises(CommandError, match="Enter the secret again"):
        apply(tmp_path, services=[moved])


*APPS, NULL, FILE, LOCAL = (CASES / "13-origins-of-apps/origins.txt").read_text().split()


def set_origins(way: str, admin_client: Client, folder: Path, *origins: str) -> str:
    """Set the allowed origins of nagra; return the error message, or an empty string."""
    if way == "apply":
        try:
            apply(folder, allowed_origins=[*origins])
        except CommandError as error:
            return str(error)
        return ""
    page = "/admin/tenants/tenant/nagra/change/"
    form = admin_client.get(page).context["adminform"].form
    values = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    response = admin_client.post(page, {**values, "allowed_origins": "\r\n".join(origins)})
    if response.status_code == 302:
        return ""
    return str(response.context["adminform"].form.errors.get_json_data())


@pytest.mark.parametrize("way", ["admin", "apply"])
def test_13_origins_of_apps_are_allowed(
    nagra: HeadEnd, admin_client: Client, tmp_path: Path, way: str
) -> None:
    assert set_origins(way, admin_client, tmp_path, *APPS, LOCAL, "http://[::1]:8080", "app.x+1://a") == ""
    for origin in (*APPS, LOCAL):
        preflight = {"origin": origin, "access-control-request-method": "POST"}
        response = Client().options("/ags/signOn", headers=preflight)
        assert (response.status_code, response["Access-Control-Allow-Origin"]) == (204, origin)
        assert nagra.discover(origin=origin)["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("way", ["admin", "apply"])
@pytest.mark.parametrize("origin", [NULL, FILE])
def test_13_an_origin_that_any_page_can_have_is_rejected_with_the_reason(
    nagra: HeadEnd, admin_client: Client, tmp_path: Path, way: str, origin: str
) -> None:
    message = set_origins(way, admin_client, tmp_path, *APPS, origin)
    assert "allowed_origins" in message
    assert f"'{origin}' cannot be listed: every local file or sandboxed page has this origin" in message
