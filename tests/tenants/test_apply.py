"""`manage.py apply`: applies a whole file or nothing, and every error has a location."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.configuration_files import (
    BASE64,
    SECRET,
    SECRET_BYTES,
    SECRETS,
    key,
    rows,
    service,
    tenant,
    writes,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.django_db
class TestApply:
    def test_to_an_empty_database(self, apply: Callable[..., list[str]]) -> None:
        assert apply(tenant()) == [
            "+ tenant nagra",
            "+ service nagra/Customer Auth Service",
            "+ key nagra/key-1",
        ]
        head_end = HeadEnd("nagra", "key-1", SECRET_BYTES)
        assert head_end.present(head_end.token(exp=1)).json()["reason"] == "token_expired"
        assert head_end.present(head_end.token()).status_code == 200

    def test_again_writes_nothing(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        before = rows()
        with CaptureQueriesContext(connection) as captured:
            assert apply(tenant()) == ["nothing to do"]
        assert writes(captured) == []
        assert rows() == before, "the version does not change either"

    def test_prints_one_line_for_each_changed_row(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        changed = tenant(
            name="Nagra AG",
            enabled=False,
            services=[service(enabled=False, settings={"clock_skew": 60, "session_token_ttl": 30})],
            keys=[key(state="retiring", not_after="2030-01-01T00:00:00+01:00")],
        )
        assert apply(changed) == [
            "~ tenant nagra: name Nagra -> Nagra AG, enabled on -> off",
            "~ service nagra/Customer Auth Service: enabled on -> off, settings.session_token_ttl 300 -> 30",
            "~ key nagra/key-1: state active -> retiring, not_after none -> 2029-12-31T23:00:00+00:00",
        ]
        assert apply(changed) == ["nothing to do"]

    def test_the_example_file(self, apply: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAGRA_SECRET", SECRET)
        assert len(apply((ROOT / "examples/demo.yaml").read_text())) == 3
        head_end = HeadEnd("nagra", "70646948-d6fb-4ce8-a433-52a14ee2fa0a", SECRET_BYTES)
        assert head_end.present(head_end.token()).status_code == 200
        assert apply((ROOT / "examples/demo.yaml").read_text()) == ["nothing to do"]

    def test_keeps_what_is_not_in_the_file(
        self, apply: Callable[..., list[str]], nagra: HeadEnd, sunrise: HeadEnd
    ) -> None:
        Tenant(id="off", name="Off", enabled=False).save()
        before = rows()
        documents: list[dict[str, Any]] = [
            {"tenants": []},
            {"tenants": [{"id": "nagra"}]},
            {"tenants": [{"id": "off", "name": "Off"}]},
            tenant(services=[], keys=[]),
            tenant(services=[{"name": SERVICE}], keys=[{"kid": nagra.kid}]),
        ]
        for document in documents:
            assert apply(document) == ["nothing to do"]
        assert rows() == before

    def test_new_rows_have_defaults_for_omitted_members(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant(services=[service(enabled=None, settings=None)], keys=[key(state=None)]))
        assert (Tenant.objects.get().enabled, Tenant.objects.get().event_retention) == (True, 30)
        stored = Service.objects.for_tenant("nagra").get()
        assert (stored.enabled, stored.logo) == (False, "")
        assert stored.settings == {
            "session_token_ttl": 300,
            "clock_skew": 30,
            "replay": "if_present",
            "max_lifetime": None,
        }
        assert Key.objects.for_tenant("nagra").get().state == "staged"
        assert Key.objects.for_tenant("nagra").get().algorithm == "HS256"

    def test_null_removes_a_date(self, apply: Callable[..., list[str]]) -> None:
        text = """
tenants:
  - id: nagra
    name: Nagra
    keys:
      - {kid: key-1, secret: {text: "a secret of the operator, 34 bytes"}, not_after: %s}
"""
        apply(text % "2030-01-01T00:00:00Z")
        assert apply(text % "null") == ["~ key nagra/key-1: not_after 2030-01-01T00:00:00+00:00 -> none"]

    def test_strings_that_yaml_1_1_would_convert_stay_strings(self, apply: Callable[..., list[str]]) -> None:
        """YAML 1.1 reads them as false, 90 and 8."""
        text = """
tenants:
  - id: no
    name: 1:30
    services:
      - {name: "on", strategy: operator_token, display_name: 010, settings: {replay: off}}
"""
        assert apply(text) == ["+ tenant no", "+ service no/on"]
        stored = Service.objects.for_tenant("no").get()
        assert (stored.tenant.name, stored.display_name) == ("1:30", "010")
        assert stored.settings["replay"] == "off"

    def test_from_standard_input(self, db: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(SECRET)
        document = yaml.safe_dump(tenant(keys=[key(secret={"file": "secret"})]))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(document.encode())))
        out = io.StringIO()
        call_command("apply", "-", stdout=out)
        assert out.getvalue().splitlines()[-1] == "+ key nagra/key-1"

    def test_adds_each_change_to_the_history(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        apply(tenant(name="Nagra AG"))
        assert [record.name for record in Tenant.objects.get().history.all()] == ["Nagra AG", "Nagra"]


@pytest.mark.django_db
def test_a_dry_run_prints_the_changes_without_saving_them(apply: Callable[..., list[str]]) -> None:
    output = apply(tenant(), "--dry-run")
    assert rows() == []
    assert output == [*apply(tenant()), "dry run: nothing was saved"]
    before = rows()
    assert apply(tenant(enabled=False), "--dry-run")[0] == "~ tenant nagra: enabled on -> off"
    assert apply(tenant(), "--dry-run") == ["nothing to do"]
    assert rows() == before
    with pytest.raises(CommandError, match=r"^tenants\[0\]\.keys\[0\]\.state: "):
        apply(tenant(keys=[key(state="lively")]), "--dry-run")


@pytest.mark.django_db
@pytest.mark.parametrize(("reference", "secret"), SECRETS.values(), ids=SECRETS)
def test_a_secret_can_come_from(
    reference: dict[str, str], secret: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_SECRET", SECRET)
    monkeypatch.setenv("OPERATOR_BASE64", BASE64)
    folders = {name: tmp_path / name for name in ("here", "elsewhere")}
    for folder in folders.values():
        folder.mkdir()
    (folders["here"] / "secret.txt").write_text(SECRET + "\n")
    (folders["elsewhere"] / "secret.b64").write_text(base64.b64encode(SECRET_BYTES).decode() + "\r\n")
    path = folders["here"] / "tenants.yaml"
    path.write_text(yaml.safe_dump(tenant(keys=[key(secret=reference)])))
    out = io.StringIO()
    call_command("apply", str(path), stdout=out)
    call_command("apply", str(path), stdout=out)
    assert Key.objects.for_tenant("nagra").get().secret() == secret
    assert out.getvalue().splitlines()[-2:] == ["+ key nagra/key-1", "nothing to do"]
    assert SECRET not in out.getvalue()
