"""The system checks of what is stored: each has an id that does not change, and names the row."""

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
from tests.conftest import SERVICE, HeadEnd, add_key
from tests.tenants.test_field_cases import apply
from tests.upstream.signer import signer

SERVICE_OF_NAGRA = f"tenant 'nagra', service '{SERVICE}': "
KEY_OF_NAGRA = "tenant 'nagra', key 'nagra-key-1': "


def found() -> list[CheckMessage]:
    return run_checks(tags=[Tags.database], databases=["default"])


def told() -> list[tuple[str | None, str]]:
    return [(message.id, message.msg) for message in found()]


def test_what_is_in_order_is_not_mentioned(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    assert told() == []


def test_a_service_whose_provider_is_gone(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    assert told() == [
        ("tenants.W001", f"{SERVICE_OF_NAGRA}the provider 'gone' is not installed, so it is not offered.")
    ]
    Service.objects.for_tenant("nagra").update(enabled=False)
    assert told() == [], "a disabled service may stay as it is"


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (
            {"clock_skew": 1000},
            "not offered: clock_skew: Ensure this value is less than or equal to 300.",
        ),
        ({"old": 1}, "not offered: old: operator_token has no such setting."),
        ([], "not offered: Settings are an object."),
    ],
)
def test_a_service_whose_settings_no_longer_hold(nagra: HeadEnd, stored: Any, why: str) -> None:
    Service.objects.for_tenant("nagra").update(settings=stored)
    assert told() == [("tenants.W002", SERVICE_OF_NAGRA + why)]


def test_a_key_that_does_not_open(nagra: HeadEnd, settings: Any) -> None:
    add_key(HeadEnd("nagra", "gone", bytes(range(50, 90))), state="revoked")
    signing = SigningKey.objects.for_tenant("nagra").get()
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(100, 132)), bytes(range(101, 133)))
    why = "none of the 2 encryption keys opens it."
    assert told() == [
        ("tenants.E001", f"{KEY_OF_NAGRA}{why}"),
        ("tenants.E001", f"tenant 'nagra', signing key '{signing.kid}': {why}"),
    ]


def test_a_key_that_is_too_short_for_its_algorithm(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="HS512")
    assert told() == [
        ("tenants.W003", f"{KEY_OF_NAGRA}HS512 needs a secret of at least 64 bytes, this has 32.")
    ]


@pytest.mark.parametrize(("state", "is_told"), [("staged", True), ("retiring", True), ("revoked", False)])
def test_a_key_that_may_come_into_force_must_open_today(
    nagra: HeadEnd, settings: Any, state: str, is_told: bool
) -> None:
    Key.objects.for_tenant("nagra").update(state=state)
    SigningKey.objects.for_tenant("nagra").update(state=state)
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(100, 132)),)
    assert [ident for ident, _ in told()] == ["tenants.E001"] * 2 * is_told


def test_a_key_of_an_algorithm_that_is_not_there(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="XS256")
    assert told() == [("tenants.W003", f"{KEY_OF_NAGRA}There is no algorithm XS256 here.")]
    answer = nagra.present(nagra.token())
    assert (answer.status_code, answer.json()["reason"]) == (401, "not_authenticated")


def test_what_is_stored_is_told_before_a_deployment(nagra: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    deploy = run_checks(tags=[Tags.security], include_deployment_checks=True, databases=None)
    assert "tenants.W001" in [message.id for message in deploy]
    told_once = run_checks(include_deployment_checks=True, databases=["default"])
    assert [message.id for message in told_once].count("tenants.W001") == 1


def test_nothing_is_read_when_no_database_was_asked_for(
    nagra: HeadEnd, django_assert_num_queries: Any
) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone")
    with django_assert_num_queries(0):
        assert run_checks(tags=[Tags.database], databases=None) == []


# What fae518b stored, and the rules of this version refuse


OKP = signer("EdDSA", "k1")
LOW_ORDER = OKP.jwk(x=base64.urlsafe_b64encode(bytes(32)).decode().rstrip("="))


def test_public_keys_that_are_too_weak_now(nagra: HeadEnd) -> None:
    rules = {"keys_from": "entered", "issuer": "https://idp.example", "audience": "ags"}
    by_keys = Service.objects.for_tenant("nagra")
    by_keys.update(strategy="signed_jwt", settings={**rules, "public_keys": json.dumps(OKP.jwk())})
    assert told() == []
    by_keys.update(settings={**rules, "public_keys": json.dumps(LOW_ORDER)})
    why = "not offered: public_keys: It has no usable key: 1 key of Ed25519 with a point of low order."
    assert told() == [("tenants.W002", SERVICE_OF_NAGRA + why)]


def test_an_origin_that_is_too_long_now_works_until_its_tenant_is_changed(nagra: HeadEnd) -> None:
    origin = f"https://{'a' * 300}.example"
    Tenant.objects.filter(pk="nagra").update(allowed_origins=[origin])
    (message,) = found()
    assert message.id == "tenants.W004"
    assert message.msg == ("tenant 'nagra': allowed_origins: An origin is text of at most 300 characters.")
    assert nagra.discover(origin=origin)["Access-Control-Allow-Origin"] == origin


UNTRIMMED = "there is white space around the secret. It is used as it is."
TEXT = "a shared secret of the two, 40 characters"


@pytest.mark.parametrize("stored", [f"{TEXT}\n", f"\ufeff{TEXT}", f"\ufeff{TEXT}\r\n"], ids=ascii)
def test_the_secret_of_a_key_that_apply_would_read_without_its_line_end(
    nagra: HeadEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    add_key(operator := replace(nagra, kid="field", secret=stored.encode()))
    assert told() == [("tenants.I001", f"tenant 'nagra', key 'field': {UNTRIMMED}")]
    assert operator.present(operator.token()).status_code == 200, "it signs with all of it"
    monkeypatch.setenv("AGS_SECRET_FIELD", stored)
    secret = {"env": "AGS_SECRET_FIELD"}
    with pytest.raises(CommandError, match="the stored secret has white space around"):
        apply(tmp_path, keys=[{"kid": "field", "secret": secret}])
    monkeypatch.setenv("AGS_SECRET_FIELD", base64.b64encode(stored.encode()).decode())
    told_so = apply(tmp_path, keys=[{"kid": "field", "secret": {**secret, "encoding": "base64"}}])
    assert told_so == "nothing to do\n"


def test_random_bytes_may_end_like_a_line(nagra: HeadEnd) -> None:
    add_key(replace(nagra, kid="random", secret=bytes(range(200, 240)) + b"\n"))
    add_key(replace(nagra, kid="control", secret=bytes(range(40)) + b"\n"))
    assert told() == []


def test_a_secret_setting_that_apply_would_read_without_its_line_end(nagra: HeadEnd, tmp_path: Path) -> None:
    entry = {"name": "Field", "strategy": "dummy", "display_name": "x", "enabled": True}
    service = Service(tenant_id="nagra", settings={"passphrase": f"{TEXT}\n"}, **entry)
    service.save()
    where = "tenant 'nagra', service 'Field', passphrase"
    assert told() == [("tenants.I001", f"{where}: {UNTRIMMED}")]
    entry["settings"] = {**service.settings, "passphrase": {"text": TEXT}}
    assert apply(tmp_path, services=[entry]) == "~ service nagra/Field: settings.passphrase changed\n"
    assert told() == []


def test_no_message_holds_a_secret(nagra: HeadEnd) -> None:
    Key.objects.for_tenant("nagra").update(algorithm="HS512")
    text = str(found())
    for spelling in (repr(nagra.secret)[2:10], nagra.secret.hex()[:8]):
        assert spelling not in text
