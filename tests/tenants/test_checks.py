"""The system checks of the stored configuration: stable ids, and messages that name the row."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, Tags, run_checks
from django.core.management import CommandError

from tenants.models import Key, Service, SigningKey, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.configuration import apply_tenant as apply
from tests.support.operators import add_key
from tests.support.upstream.signer import signer

SERVICE_OF_NAGRA = f"tenant 'nagra', service '{SERVICE}': "
KEY_OF_NAGRA = "tenant 'nagra', key 'nagra-key-1': "


def run_database_checks() -> list[CheckMessage]:
    return run_checks(tags=[Tags.database], databases=["default"])


def messages() -> list[tuple[str | None, str]]:
    return [(message.id, message.msg) for message in run_database_checks()]


def test_a_valid_configuration_has_no_messages(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    assert messages() == []


def test_a_service_whose_provider_is_not_installed(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    assert messages() == [
        ("tenants.W001", f"{SERVICE_OF_NAGRA}not offered: the provider 'gone' is not installed.")
    ]
    Service.objects.for_tenant("nagra").update(enabled=False)
    assert messages() == [], "disabled services are not checked"


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (
            {"clock_skew": 1000},
            "not offered: clock_skew: Ensure this value is less than or equal to 300.",
        ),
        ({"old": 1}, "not offered: old: operator_token has no such setting."),
        ([], "not offered: Settings must be an object."),
    ],
)
def test_a_service_whose_settings_are_invalid(nagra: HeadEnd, stored: Any, reason: str) -> None:
    Service.objects.for_tenant("nagra").update(settings=stored)
    assert messages() == [("tenants.W002", SERVICE_OF_NAGRA + reason)]


def test_a_key_that_cannot_be_decrypted(nagra: HeadEnd, settings: Any) -> None:
    add_key(HeadEnd("nagra", "gone", bytes(range(50, 90))), state="revoked")
    signing = SigningKey.objects.for_tenant("nagra").order_by("kid")
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(100, 132)), bytes(range(101, 133)))
    reason = "none of the 2 encryption keys decrypts the secret."
    assert messages() == [
        ("tenants.E001", f"{KEY_OF_NAGRA}{reason}"),
        *(("tenants.E001", f"tenant 'nagra', signing key '{key.kid}': {reason}") for key in signing),
    ]


def test_a_key_that_is_too_short_for_its_algorithm(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="HS512")
    assert messages() == [
        ("tenants.W003", f"{KEY_OF_NAGRA}HS512 needs a secret of at least 64 bytes; this one has 32.")
    ]


@pytest.mark.parametrize(("state", "is_reported"), [("staged", True), ("retiring", True), ("revoked", False)])
def test_every_key_that_is_not_revoked_must_be_decryptable(
    nagra: HeadEnd, settings: Any, state: str, is_reported: bool
) -> None:
    Key.objects.for_tenant("nagra").update(state=state)
    SigningKey.objects.for_tenant("nagra").filter(state="active").update(state=state)
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(100, 132)),)
    assert [check_id for check_id, _ in messages()] == ["tenants.E001"] * (1 + 2 * is_reported)


def test_a_tenant_without_a_standby_key(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    SigningKey.objects.for_tenant("nagra").filter(state="staged").delete()
    assert messages() == [("tenants.W005", "tenant 'nagra': no standby signing key is published.")]
    for changes in ({"enabled": False}, {"enabled": True, "signing_algorithm": "HS256"}):
        Tenant.objects.filter(pk="nagra").update(**changes)
        assert messages() == [], "it needs none"


def test_a_key_with_an_unsupported_algorithm(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="XS256")
    assert messages() == [("tenants.W003", f"{KEY_OF_NAGRA}The algorithm XS256 is not supported.")]
    response = nagra.present(nagra.token())
    assert (response.status_code, response.json()["reason"]) == (401, "not_authenticated")


def test_check_deploy_includes_the_stored_configuration(nagra: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    deploy = run_checks(tags=[Tags.security], include_deployment_checks=True, databases=None)
    assert "tenants.W001" in [message.id for message in deploy]
    database_checks = run_checks(include_deployment_checks=True, databases=["default"])
    assert [message.id for message in database_checks].count("tenants.W001") == 1


def test_nothing_is_queried_when_no_database_is_selected(
    nagra: HeadEnd, django_assert_num_queries: Any
) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    with django_assert_num_queries(0):
        assert run_checks(tags=[Tags.database], databases=None) == []


# Values that version fae518b stored and this version rejects


OKP = signer("EdDSA", "k1")
LOW_ORDER = OKP.jwk(x=base64.urlsafe_b64encode(bytes(32)).decode().rstrip("="))


def test_public_keys_that_are_rejected_as_weak_since(nagra: HeadEnd) -> None:
    rules = {"keys_from": "entered", "issuer": "https://idp.example", "audience": "ags"}
    by_keys = Service.objects.for_tenant("nagra")
    by_keys.update(strategy="signed_jwt", settings={**rules, "public_keys": json.dumps(OKP.jwk())})
    assert messages() == []
    by_keys.update(settings={**rules, "public_keys": json.dumps(LOW_ORDER)})
    reason = "not offered: public_keys: It has no usable key: 1 key with an Ed25519 point of low order."
    assert messages() == [("tenants.W002", SERVICE_OF_NAGRA + reason)]


def test_a_stored_origin_that_is_too_long_still_works(nagra: HeadEnd) -> None:
    origin = f"https://{'a' * 300}.example"
    Tenant.objects.filter(pk="nagra").update(allowed_origins=[origin])
    (message,) = run_database_checks()
    assert message.id == "tenants.W004"
    assert message.msg == (
        "tenant 'nagra': allowed_origins: An origin must be a string of at most 300 characters."
    )
    assert nagra.discover(origin=origin)["Access-Control-Allow-Origin"] == origin


def test_a_stored_network_that_is_invalid_exempts_nothing(nagra: HeadEnd) -> None:
    Tenant.objects.filter(pk="nagra").update(exempt_networks=["10.0.0.0/8", "10.1.0.1/16"])
    (message,) = run_database_checks()
    assert message.id == "tenants.W004"
    assert "exempt_networks: '10.1.0.1/16' is not a network" in message.msg
    assert nagra.present(nagra.token()).status_code == 200


UNTRIMMED = "the secret begins or ends with white space, and is used unchanged."
TEXT = "a shared secret of the two, 40 characters"


@pytest.mark.parametrize("stored", [f"{TEXT}\n", f"\ufeff{TEXT}", f"\ufeff{TEXT}\r\n"], ids=ascii)
def test_the_secret_of_a_key_with_white_space_that_apply_strips(
    nagra: HeadEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    add_key(operator := replace(nagra, kid="field", secret=stored.encode()))
    assert messages() == [("tenants.I001", f"tenant 'nagra', key 'field': {UNTRIMMED}")]
    assert operator.present(operator.token()).status_code == 200, "the white space is part of the secret"
    monkeypatch.setenv("AGS_SECRET_FIELD", stored)
    secret = {"env": "AGS_SECRET_FIELD"}
    with pytest.raises(CommandError, match="the stored secret begins or ends with white space"):
        apply(tmp_path, keys=[{"kid": "field", "secret": secret}])
    monkeypatch.setenv("AGS_SECRET_FIELD", base64.b64encode(stored.encode()).decode())
    output = apply(tmp_path, keys=[{"kid": "field", "secret": {**secret, "encoding": "base64"}}])
    assert output == "nothing to do\n"


def test_random_bytes_may_end_with_a_line_break(nagra: HeadEnd) -> None:
    add_key(replace(nagra, kid="random", secret=bytes(range(200, 240)) + b"\n"))
    add_key(replace(nagra, kid="control", secret=bytes(range(40)) + b"\n"))
    assert messages() == []


def test_a_secret_setting_with_white_space_that_apply_strips(nagra: HeadEnd, tmp_path: Path) -> None:
    entry = {"name": "Field", "strategy": "dummy", "display_name": "x", "enabled": True}
    service = Service(tenant_id="nagra", settings={"passphrase": f"{TEXT}\n"}, **entry)
    service.save()
    location = "tenant 'nagra', service 'Field', passphrase"
    assert messages() == [("tenants.I001", f"{location}: {UNTRIMMED}")]
    entry["settings"] = {**service.settings, "passphrase": {"text": TEXT}}
    assert apply(tmp_path, services=[entry]) == "~ service nagra/Field: settings.passphrase changed\n"
    assert messages() == []


def test_no_message_contains_a_secret(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="HS512")
    text = str(run_database_checks())
    for spelling in (repr(nagra.secret)[2:10], nagra.secret.hex()[:8]):
        assert spelling not in text
