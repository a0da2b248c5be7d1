"""`manage.py apply`: applies a whole file or nothing, and every error has a location."""

from __future__ import annotations

import base64
import io
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.config_file.schema import parse_tenants
from tenants.config_file.secret_refs import SECRET_FILE_MAX_LENGTH
from tenants.config_file.yaml_loader import MAX_BYTES
from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.operators import add_key

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of the operator, 34 bytes"
SECRET_BYTES = SECRET.encode()


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., list[str]]:
    """Run the command with a document that is dumped to YAML, or with the given text or bytes."""

    def run(document: Any, *options: str) -> list[str]:
        path = tmp_path / "tenants.yaml"
        text = document if isinstance(document, str | bytes) else yaml.safe_dump(document)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        out = io.StringIO()
        call_command("apply", str(path), *options, stdout=out)
        return out.getvalue().splitlines()

    return run


def service(**changes: Any) -> dict[str, Any]:
    members = {
        "name": SERVICE,
        "strategy": "operator_token",
        "display_name": "Customer Authentication",
        "enabled": True,
        "settings": {"clock_skew": 60},
    }
    return without_none(members | changes)


def key(**changes: Any) -> dict[str, Any]:
    return without_none({"kid": "key-1", "state": "active", "secret": {"text": SECRET}} | changes)


def tenant(**changes: Any) -> dict[str, Any]:
    members = {"id": "nagra", "name": "Nagra", "services": [service()], "keys": [key()]}
    return {"tenants": [without_none(members | changes)]}


def without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def rows() -> list[dict[str, Any]]:
    return [row for model in (Tenant, Service, Key) for row in model._base_manager.order_by("pk").values()]


def writes(captured: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in captured if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]


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
        assert Tenant.objects.get().enabled is True
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


BASE64 = base64.b64encode(bytes(range(190, 254))).decode()
SECRETS: dict[str, tuple[dict[str, str], bytes]] = {
    "text": ({"text": SECRET}, SECRET_BYTES),
    "base64": ({"base64": BASE64}, bytes(range(190, 254))),
    "base64url": ({"base64url": BASE64.replace("/", "_").replace("+", "-")}, bytes(range(190, 254))),
    "a variable": ({"env": "OPERATOR_SECRET"}, SECRET_BYTES),
    "a variable in base64": ({"env": "OPERATOR_BASE64", "encoding": "base64"}, bytes(range(190, 254))),
    "a file": ({"file": "secret.txt"}, SECRET_BYTES),
    "a file in another folder": ({"file": "../elsewhere/secret.b64", "encoding": "base64"}, SECRET_BYTES),
}


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


def deep(levels: int) -> str:
    return "tenants: " + "[" * levels + "]" * levels


def at_secret(secret: Any) -> dict[str, Any]:
    return tenant(keys=[key(secret=secret)])


SERVICE_0 = "tenants[0].services[0]"
KEY_0 = "tenants[0].keys[0]"
ONE_OF = f"{KEY_0}.secret: must be one of"
ERRORS: dict[str, tuple[Any, str]] = {
    # YAML syntax
    "nothing": ("", "file: must be a mapping"),
    "a list": ("- a", "file: must be a mapping"),
    "two documents": ("tenants: []\n---\ntenants: []", "line 2: not valid YAML: "),
    "not YAML": ("tenants: [\n  }", "line 2: not valid YAML: "),
    "a tab": ("tenants:\n\t- id: x", "line 2: not valid YAML: "),
    "not UTF-8": (b"tenants: []\n# \xff", "file: not UTF-8 at byte 14"),
    "UTF-16": ("tenants: []".encode("utf-16"), "file: not UTF-8 at byte 0"),
    "too large": ("#" * MAX_BYTES + "\n", f"file: larger than {MAX_BYTES} bytes"),
    "too deep": (deep(17), "line 1: nested deeper than 16"),
    "far too deep": (deep(100_000), "line 1: nested deeper than 16"),
    "a NUL": (b"tenants: [\0]", "file: not valid YAML: "),
    "an escaped NUL": ('tenants: [{id: "a\\0"}]', "tenants[0].id: contains a NUL"),
    "an unpaired surrogate": ('tenants: [{id: a, name: "\\ud800"}]', "tenants[0].name: contains a NUL"),
    "an invalid escape": ('tenants: [{id: "\\UFFFFFFFF"}]', "file: not valid YAML: "),
    "an anchor": ("tenants: &a []", "line 1: anchors and aliases are not allowed"),
    "an alias": ("a: 1\ntenants: *a", "line 2: anchors and aliases are not allowed"),
    "an alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\ntenants: [*b, *b]",
        "line 1: anchors and aliases are not allowed",
    ),
    "a tag": ("tenants: !!python/object/apply:os.system [x]", "line 1: tags are not allowed"),
    "a name that is not a string": ("tenants: [{1: x}]", "tenants[0]: a name is not a string, at line 1"),
    "a name that is a list": ("? [a]\n: 1", "file: a name is not a string, at line 1"),
    "a long name": (f"? {'a' * 256}\n: []", "line 1: a name has more than 255 characters"),
    "a duplicate member": (
        "tenants:\n  - id: nagra\n    name: a\n    name: b",
        "tenants[0].name: duplicate, at line 4",
    ),
    "a duplicate setting": (
        "tenants: [{id: a, services: [{name: b, settings: {replay: off, replay: required}}]}]",
        f"{SERVICE_0}.settings.replay: duplicate, at line 1",
    ),
    # Structure
    "no tenants": ({}, "tenants: missing"),
    "an unknown top-level member": (
        {"tenants": [], "users": []},
        "users: unknown member; must be one of tenants",
    ),
    "tenants that are not a list": ({"tenants": {}}, "tenants: must be a list"),
    "a tenant that is a string": ({"tenants": ["nagra"]}, "tenants[0]: must be a mapping"),
    "a tenant without an id": ({"tenants": [{"name": "x"}]}, "tenants[0].id: missing"),
    "an id that is a number": ({"tenants": [{"id": 5}]}, "tenants[0].id: must be a string"),
    "an unknown member": (
        tenant(colour="red"),
        "tenants[0].colour: unknown member; must be one of access_token_ttl, allowed_origins",
    ),
    "a member of a database row": (tenant(version=5), "tenants[0].version: unknown member"),
    "a name that is null": ({"tenants": [{"id": "a", "name": None}]}, "tenants[0].name: must be a string"),
    "enabled that is a string": (tenant(enabled="off"), "tenants[0].enabled: must be true or false"),
    "a limit that is a boolean": (tenant(device_limit=True), "tenants[0].device_limit: must be an integer"),
    "a limit that is a string": (tenant(device_limit="3"), "tenants[0].device_limit: must be an integer"),
    "a lifetime that is no integer": (
        tenant(access_token_ttl=60.0),
        "tenants[0].access_token_ttl: must be an integer",
    ),
    "a lifetime that is null": (
        {"tenants": [{"id": "a", "refresh_grace": None}]},
        "tenants[0].refresh_grace: must be an integer",
    ),
    "an origin that is a number": (
        tenant(allowed_origins=["https://tv.example", 1, 2]),
        "tenants[0].allowed_origins[1]: must be a string",
    ),
    "origins that are a string": (
        tenant(allowed_origins="https://tv.example"),
        "tenants[0].allowed_origins: must be a list",
    ),
    "the first of several errors": (
        {"tenants": [{"id": "a", "services": [{}, 1], "keys": 1}, 1]},
        f"{SERVICE_0}.name: missing",
    ),
    "a duplicate tenant": (
        {"tenants": [{"id": "a", "name": "x"}, {"id": "a", "name": "x"}]},
        "tenants[1].id: duplicate of tenants[0].id",
    ),
    "services that are null": (
        {"tenants": [{"id": "a", "services": None}]},
        "tenants[0].services: must be a list",
    ),
    "a service without a name": (tenant(services=[{"strategy": "x"}]), f"{SERVICE_0}.name: missing"),
    "a duplicate service": (
        tenant(services=[service(), service()]),
        "tenants[0].services[1].name: duplicate of tenants[0].services[0].name",
    ),
    "an unknown member of a service": (
        tenant(services=[service(url="x")]),
        f"{SERVICE_0}.url: unknown member",
    ),
    "settings that are a list": (
        tenant(services=[service(settings=[])]),
        f"{SERVICE_0}.settings: must be a mapping",
    ),
    "a duplicate kid": (
        tenant(keys=[key(), key()]),
        "tenants[0].keys[1].kid: duplicate of tenants[0].keys[0].kid",
    ),
    "an unknown member of a key": (tenant(keys=[key(id=1)]), f"{KEY_0}.id: unknown member"),
    "a date without a UTC offset": (
        tenant(keys=[key(not_before="2030-01-01T00:00:00")]),
        f"{KEY_0}.not_before: must be an ISO 8601 date and time with a UTC offset",
    ),
    "a date that is a number": (
        tenant(keys=[key(not_after=1893456000)]),
        f"{KEY_0}.not_after: must be a string",
    ),
    "a date that is a number in quotes": (
        tenant(keys=[key(not_after="1893456000")]),
        f"{KEY_0}.not_after: must be an ISO 8601 date and time",
    ),
    "an invalid date": (
        tenant(keys=[key(not_after="soon")]),
        f"{KEY_0}.not_after: must be an ISO 8601 date and time",
    ),
    "a date that overflows in UTC": (
        tenant(keys=[key(not_after="9999-12-31T23:59:59-12:00")]),
        f"{KEY_0}.not_after: must be an ISO 8601 date and time",
    ),
    # Validation by the models
    "a tenant without a name": (tenant(name=None), "tenants[0].name: This field cannot be blank."),
    "an id that is not valid in a header": (
        {"tenants": [{"id": "na gra", "name": "x"}]},
        "tenants[0].id: 1 to 64 letters",
    ),
    "a name that is too long": (tenant(name="x" * 201), "tenants[0].name: Ensure this value has at most 200"),
    "a service name with a comma": (tenant(services=[service(name="a,b")]), f"{SERVICE_0}.name: Printable"),
    "an unknown strategy": (
        tenant(services=[service(strategy="magic")]),
        f"{SERVICE_0}.strategy: The strategy 'magic' is not installed.",
    ),
    "a logo that is not an https URL": (
        tenant(services=[service(logo="http://x.example/")]),
        f"{SERVICE_0}.logo: Enter a valid URL.",
    ),
    "a setting out of bounds": (
        tenant(services=[service(settings={"clock_skew": 301})]),
        f"{SERVICE_0}.settings.clock_skew: Ensure this value is less than or equal to 300.",
    ),
    "an unknown setting": (
        tenant(services=[service(settings={"skew": 1})]),
        f"{SERVICE_0}.settings.skew: operator_token has no such setting.",
    ),
    "an invalid kid": (tenant(keys=[key(kid="a b")]), f"{KEY_0}.kid: 1 to 128 letters"),
    "an unknown state": (tenant(keys=[key(state="lively")]), f"{KEY_0}.state: Value 'lively' is not a valid"),
    "an unknown algorithm": (
        tenant(keys=[key(algorithm="none")]),
        f"{KEY_0}.algorithm: must be one of HS256, HS384, HS512",
    ),
    "dates in the wrong order": (
        tenant(keys=[key(not_before="2030-01-02T00:00:00Z", not_after="2030-01-01T00:00:00Z")]),
        f"{KEY_0}.not_after: This must be later than not before.",
    ),
    # Secrets
    "no secret": (tenant(keys=[{"kid": "a"}]), f"{KEY_0}.secret: missing"),
    "a secret that is null": ({"tenants": [{"id": "a", "keys": [{"kid": "a", "secret": None}]}]}, ONE_OF),
    "a secret that is not a reference": (at_secret(SECRET), ONE_OF),
    "a list of secrets": (at_secret([SECRET]), ONE_OF),
    "an unknown member of a reference": (at_secret({"env": "NOT_SET", SECRET: SECRET}), ONE_OF),
    "a source that is null": (at_secret({"text": None}), f"{KEY_0}.secret.text: must be a string"),
    "a line after the name of a variable": (
        at_secret({"env": "NOT_SET\n"}),
        f"{KEY_0}.secret.env: must be the name of an environment variable",
    ),
    "a long name of a variable": (
        at_secret({"env": "A" * 256}),
        f"{KEY_0}.secret.env: must be the name of an environment variable",
    ),
    "an empty reference": (at_secret({}), ONE_OF),
    "two sources": (at_secret({"text": SECRET, "base64": SECRET}), ONE_OF),
    "an unknown source": (at_secret({SECRET: "x"}), ONE_OF),
    "only an encoding": (at_secret({"encoding": "base64"}), ONE_OF),
    "a secret of another type": (at_secret({"text": 5}), f"{KEY_0}.secret.text: must be a string"),
    "an inline secret with an encoding": (
        at_secret({"base64": SECRET, "encoding": "base64"}),
        f"{KEY_0}.secret.encoding: is allowed with env and file only",
    ),
    "an unknown encoding": (
        at_secret({"env": "NOT_SET", "encoding": SECRET}),
        f"{KEY_0}.secret.encoding: must be one of text, base64, base64url",
    ),
    "a secret instead of the name of a variable": (
        at_secret({"env": SECRET}),
        f"{KEY_0}.secret.env: must be the name of an environment variable",
    ),
    "a variable that is not set": (
        at_secret({"env": "NOT_SET"}),
        f"{KEY_0}.secret.env: the variable NOT_SET is not set",
    ),
    "a file that does not exist": (
        at_secret({"file": "gone"}),
        f"{KEY_0}.secret.file: cannot read gone: No such file",
    ),
    "a folder": (at_secret({"file": "."}), f"{KEY_0}.secret.file: cannot read .: Is a directory"),
    "an empty path": (at_secret({"file": ""}), f"{KEY_0}.secret.file: must be a path"),
    "invalid base64": (at_secret({"base64": SECRET}), f"{KEY_0}.secret: The secret is not valid base64."),
    "invalid base64url": (
        at_secret({"base64url": "a+/b"}),
        f"{KEY_0}.secret: The secret is not valid base64url.",
    ),
    "a short secret": (
        at_secret({"text": "short"}),
        f"{KEY_0}.secret: HS256 needs a secret of at least 32 bytes; this one has 5.",
    ),
    "a secret too short for its algorithm": (
        tenant(keys=[key(algorithm="HS512")]),
        f"{KEY_0}.secret: HS512 needs a secret of at least 64 bytes; this one has 34.",
    ),
    "a secret that is too long": (
        at_secret({"text": "ab" * 600}),
        f"{KEY_0}.secret: A secret has at most 1024 bytes; this one has 1200.",
    ),
    "a secret of one byte repeated": (
        at_secret({"text": "a" * 32}),
        f"{KEY_0}.secret: All bytes of the secret are the same.",
    ),
    "a PEM": (
        at_secret({"text": "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0B"}),
        f"{KEY_0}.secret: This is a PEM or SSH key",
    ),
    "an SSH key": (
        at_secret({"text": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"}),
        f"{KEY_0}.secret: This is a PEM or SSH key",
    ),
    "a JWK": (
        at_secret({"text": '{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}'}),
        f"{KEY_0}.secret: This is a JWK",
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("document", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_with_its_location_and_changes_nothing(
    apply: Callable[..., list[str]], document: Any, expected: str
) -> None:
    if isinstance(document, dict) and isinstance(document.get("tenants"), list):
        # A valid tenant, which must not be saved either.
        valid = {"id": "valid", "name": "Valid"}
        document = {**document, "tenants": [*document["tenants"], valid]}
    with pytest.raises(CommandError) as raised:
        apply(document)
    message = str(raised.value)
    assert message.startswith(expected), message
    assert "\n" not in message
    assert SECRET not in message
    assert rows() == []
    assert raised.value.returncode == 1
    for error in chain(raised.value):
        assert SECRET not in repr(error) + "".join(traceback.format_exception_only(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it was raised from, also if its traceback suppresses that."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


SECRET_SETTING_ERRORS: dict[str, tuple[Any, str]] = {
    "a list": ([SECRET], "secret: must be one of {env: NAME}, {file: PATH}"),
    "an unknown source": ({SECRET: "x"}, "secret: must be one of {env: NAME}, {file: PATH}"),
    "two sources": ({"text": SECRET, "base64": SECRET}, "secret: must be one of {env: NAME}, {file: PATH}"),
    "another type": ({"text": [SECRET]}, "secret.text: must be a string"),
    "an encoding of text": (
        {"text": SECRET, "encoding": "text"},
        "secret.encoding: is allowed with env and file only",
    ),
    "a secret in place of a variable": ({"env": SECRET}, "secret.env: must be the name of an environment"),
    "a variable that is not set": ({"env": "NOT_SET"}, "secret.env: the variable NOT_SET is not set"),
    "invalid base64": ({"base64": SECRET}, "secret: The secret is not valid base64."),
    "no text": ({"base64": "/w=="}, "secret: the decoded value is not UTF-8 text"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "expected"), SECRET_SETTING_ERRORS.values(), ids=SECRET_SETTING_ERRORS)
def test_an_error_in_a_secret_setting_has_its_location(
    apply: Callable[..., list[str]], value: Any, expected: str
) -> None:
    settings = {"address": "https://x.example/", "authentication": "basic", "user": "ags", "secret": value}
    with pytest.raises(CommandError) as raised:
        apply(tenant(services=[service(strategy="operator_login", settings=settings)]))
    assert str(raised.value).startswith(f"{SERVICE_0}.settings.{expected}"), raised.value
    for error in chain(raised.value):
        assert SECRET not in repr(error) + "".join(traceback.format_exception_only(error))
    assert rows() == []


def test_the_entries_of_a_file_do_not_show_the_secrets_of_keys() -> None:
    for name, (reference, _) in SECRETS.items():
        (entry,) = parse_tenants(yaml.safe_dump(at_secret(reference)).encode())
        assert SECRET not in repr(entry), name
        assert BASE64 not in repr(entry), name


@pytest.mark.django_db
def test_an_error_in_the_last_key_rolls_back_all_changes(
    apply: Callable[..., list[str]], nagra: HeadEnd
) -> None:
    before = rows()
    document = tenant(name="Changed", keys=[key(), key(kid="key-2", secret={"text": "short"})])
    with pytest.raises(CommandError, match=r"^tenants\[0\]\.keys\[1\]\.secret: HS256 needs"):
        apply(document)
    assert rows() == before


@pytest.mark.django_db
class TestImmutableValues:
    def error(self, apply: Callable[..., list[str]], document: Any) -> str:
        before = rows()
        with pytest.raises(CommandError) as raised:
            apply(document)
        assert rows() == before
        return str(raised.value)

    def test_the_secret(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, at_secret({"text": SECRET + "!"}))
        assert message == f"{KEY_0}.secret: differs from the stored secret: create a new key to rotate"

    def test_the_algorithm(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, tenant(keys=[key(algorithm="HS384")]))
        assert message == f"{KEY_0}.algorithm: cannot be changed: this key uses HS256"

    def test_the_state_of_a_revoked_key(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant(keys=[key(state="revoked")]))
        assert apply(tenant(keys=[key(state="revoked")])) == ["nothing to do"]
        message = self.error(apply, tenant())
        assert message == f"{KEY_0}.state: A revoked key cannot be reactivated: create a new one."

    def test_the_strategy_of_a_service(self, apply: Callable[..., list[str]]) -> None:
        apply(tenant())
        message = self.error(apply, tenant(services=[service(strategy="dummy", settings=None)]))
        assert message == f"{SERVICE_0}.strategy: cannot be changed: this service uses operator_token"

    def test_a_stored_secret_that_cannot_be_decrypted_is_reported(
        self, apply: Callable[..., list[str]], settings: Any
    ) -> None:
        apply(tenant())
        settings.AGS_ENCRYPTION_KEYS = (bytes(range(32, 64)),)
        message = self.error(apply, tenant())
        assert message == f"{KEY_0}.secret: the stored secret cannot be decrypted"


@pytest.mark.django_db
def test_the_secret_of_an_existing_key_is_optional(apply: Callable[..., list[str]]) -> None:
    apply(tenant())
    assert apply(tenant(keys=[key(secret=None)])) == ["nothing to do"]
    assert apply(at_secret({"env": "NOT_SET"})) == ["nothing to do"]


@pytest.mark.django_db
def test_a_large_secret_file_is_not_read_completely(apply: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ab" * SECRET_FILE_MAX_LENGTH)
    with pytest.raises(CommandError, match=f"this one has {SECRET_FILE_MAX_LENGTH}"):
        apply(at_secret({"file": "secret"}))


@pytest.mark.django_db
def test_a_service_whose_provider_is_not_installed_can_be_kept_and_disabled(
    apply: Callable[..., list[str]], nagra: HeadEnd
) -> None:
    Service.objects.for_tenant("nagra").update(strategy="gone", settings={"old": 1})
    unchanged = {"name": SERVICE, "strategy": "gone", "enabled": True, "settings": {"old": 1}}
    assert apply(tenant(services=[unchanged], keys=[])) == ["nothing to do"]
    assert apply(tenant(services=[unchanged | {"enabled": False}], keys=[])) == [
        "~ service nagra/Customer Auth Service: enabled on -> off"
    ]
    with pytest.raises(CommandError, match=r"\.strategy: The strategy 'gone' is not installed"):
        apply(tenant(services=[unchanged], keys=[]))


@pytest.mark.django_db
def test_a_disabled_service_with_invalid_settings_can_be_kept(
    apply: Callable[..., list[str]], nagra: HeadEnd
) -> None:
    Service.objects.for_tenant("nagra").update(enabled=False, settings={"old": 1})
    unchanged = {"name": SERVICE, "enabled": False, "settings": {"old": 1}}
    assert apply(tenant(services=[unchanged], keys=[])) == ["nothing to do"]
    with pytest.raises(CommandError, match=r"\.settings\.old: operator_token has no such setting"):
        apply(tenant(services=[unchanged | {"enabled": True}], keys=[]))


@pytest.mark.django_db
def test_the_same_kid_and_service_name_of_another_tenant_are_not_changed(
    apply: Callable[..., list[str]], sunrise: HeadEnd
) -> None:
    add_key(HeadEnd("sunrise", "key-1", bytes(range(50, 90))))
    before = [row for row in rows() if "sunrise" in (row["id"], row.get("tenant_id"))]
    assert len(apply(tenant())) == 3
    assert [row for row in rows() if "sunrise" in (row["id"], row.get("tenant_id"))] == before


def test_a_missing_file_is_reported(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"gone\.yaml: No such file or directory"):
        call_command("apply", str(tmp_path / "gone.yaml"))
