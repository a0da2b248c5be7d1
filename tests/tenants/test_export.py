"""`manage.py export`: `apply` reads the output back, and it contains no secret."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ags.sessions.models import Event
from tenants.config_file.export import export as export_tenants
from tenants.config_file.yaml_loader import parse_yaml
from tenants.models import Key, Service, SigningKey, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.operators import add_key

NAGRA = """tenants:
- id: nagra
  name: Nagra
  enabled: true
  device_limit: null
  access_token_ttl: 3600
  refresh_token_ttl: 172800
  sign_on_ttl: 7776000
  refresh_grace: 10
  signing_algorithm: ES256
  issuer: ags
  audience: ''
  allowed_origins: []
  max_failures_per_address: 5000
  max_sign_ons_per_account: 120
  exempt_networks: []
  event_retention: 30
  unused_retention: 0
  services:
  - name: Customer Auth Service
    strategy: operator_token
    display_name: Customer Authentication
    logo: https://customer.example/auth.png
    enabled: true
    settings:
      clock_skew: 30
      max_lifetime: null
      replay: if_present
      session_token_ttl: 300
  keys:
  - kid: nagra-key-1
    algorithm: HS256
    state: active
    secret:
      env: AGS_SECRET__NAGRA__NAGRA_KEY_1
      encoding: base64
  resource_servers: []
"""


def export(*tenants: str) -> str:
    out = io.StringIO()
    call_command("export", *tenants, stdout=out)
    return out.getvalue()


def apply(text: str, folder: Path) -> list[str]:
    path = folder / "tenants.yaml"
    path.write_text(text)
    out = io.StringIO()
    call_command("apply", str(path), stdout=out)
    return out.getvalue().splitlines()


def variables(text: str) -> dict[tuple[str, str], str]:
    """Return the names of the variables by tenant ID and kid."""
    return {
        (tenant["id"], key["kid"]): key["secret"]["env"]
        for tenant in yaml.safe_load(text)["tenants"]
        for key in tenant["keys"]
    }


def clear_database() -> None:
    for model in (Key, Service, SigningKey, Event, Tenant):
        model._base_manager.all().delete()


@pytest.fixture
def awkward_tenants(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Tenants with values that are difficult to represent in YAML."""
    add_key(HeadEnd("nagra", "a.b", bytes(range(40, 104)), "HS512"), state="staged")
    add_key(HeadEnd("nagra", "a_b", bytes(range(41, 105)), "HS512"), state="retiring")
    add_key(
        HeadEnd("nagra", "A_B", bytes(range(200, 256))),
        state="revoked",
        not_before=datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC),
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
    )
    Service(
        tenant_id="sunrise",
        name="no: # 'yes'",
        strategy="operator_token",
        display_name="1:30 \u2028 \U0001f4fa \x85 é \\ \"'",
        settings={"replay": "off", "max_lifetime": 60},
    ).save()
    Tenant(id="010", name="off", enabled=False).save()
    Tenant(id="Zulu", name="~").save()


def test_the_output_has_the_format_of_apply(nagra: HeadEnd) -> None:
    assert export() == NAGRA


def test_applying_an_export_changes_nothing(awkward_tenants: None, tmp_path: Path) -> None:
    assert apply(export(), tmp_path) == ["nothing to do"]
    assert apply(export("sunrise"), tmp_path) == ["nothing to do"]


def test_an_export_recreates_the_configuration_in_an_empty_database(
    awkward_tenants: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = export()
    secrets = {(key.tenant_id, key.kid): key.secret() for key in Key.unscoped.all()}
    clear_database()
    for key, variable in variables(text).items():
        monkeypatch.setenv(variable, base64.b64encode(secrets[key]).decode())
    assert apply(text, tmp_path)[0] == "+ tenant 010"
    assert export() == text
    assert {(key.tenant_id, key.kid): key.secret() for key in Key.unscoped.all()} == secrets
    assert apply(text, tmp_path) == ["nothing to do"], "the variables are set, so the secrets are compared"


def test_a_missing_variable_is_named(nagra: HeadEnd, tmp_path: Path) -> None:
    text = export()
    clear_database()
    with pytest.raises(CommandError) as raised:
        apply(text, tmp_path)
    assert str(raised.value) == (
        "tenants[0].keys[0].secret.env: the variable AGS_SECRET__NAGRA__NAGRA_KEY_1 is not set"
    )
    assert not Tenant.objects.exists()


def test_the_output_does_not_depend_on_the_order_of_rows(awkward_tenants: None) -> None:
    text = export()
    assert [tenant["id"] for tenant in yaml.safe_load(text)["tenants"]] == ["010", "Zulu", "nagra", "sunrise"]
    assert [kid for _, kid in variables(text)] == ["A_B", "a.b", "a_b", "nagra-key-1", "sunrise-key-1"]
    assert export_tenants(reversed(Tenant.objects.order_by("id"))) == text


def test_each_key_has_its_own_variable(awkward_tenants: None) -> None:
    Tenant(id="nagra-a", name="x").save()
    Tenant(id="NAGRA", name="x").save()
    add_key(HeadEnd("nagra-a", "b", bytes(range(42, 106))))
    add_key(HeadEnd("nagra", "a-b", bytes(range(43, 107))))
    add_key(HeadEnd("NAGRA", "a-b", bytes(range(44, 108))))
    names = variables(export())
    assert len(set(names.values())) == len(names)
    assert variables(export("nagra")) == {key: name for key, name in names.items() if key[0] == "nagra"}


def test_only_the_given_tenants_are_exported(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    assert export("nagra") == NAGRA
    with pytest.raises(CommandError, match=r"Tenant nobody does not exist\."):
        export("nagra", "nobody")


def test_no_secret_is_exported(awkward_tenants: None) -> None:
    text = export()
    for key in Key.unscoped.all():
        for secret in (key.secret(), bytes(key.sealed_secret)):
            for encoded in (base64.b64encode(secret).decode(), secret.hex(), secret.decode("latin-1")):
                assert encoded[:16] not in text


def test_a_key_that_cannot_be_decrypted_is_exported_too(
    nagra: HeadEnd, tmp_path: Path, settings: Any
) -> None:
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(32, 64)),)
    assert export() == NAGRA
    assert apply(NAGRA, tmp_path) == ["nothing to do"]


def test_without_tenants_the_list_is_empty(db: None, tmp_path: Path) -> None:
    assert export() == "tenants: []\n"
    assert apply(export(), tmp_path) == ["nothing to do"]


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
AWKWARD = st.sampled_from(
    ["no", "1e5", "1.5", "0x1F", "1_000", "-0", "+1", "=", "<<", "2026-01-01", "&a", "*a"]
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(10**17), 10**17), WORDS, AWKWARD)


@given(name=WORDS | AWKWARD, stored=st.dictionaries(WORDS | AWKWARD, VALUES, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_all_text_and_settings_round_trip(nagra: HeadEnd, name: str, stored: dict[str, Any]) -> None:
    Service.objects.for_tenant("nagra").update(display_name=name, settings=stored)
    (tenant,) = parse_yaml(export().encode())["tenants"]
    (service,) = tenant["services"]
    assert (service["name"], service["display_name"], service["settings"]) == (SERVICE, name, stored)
