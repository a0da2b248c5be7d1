"""An error in a configuration file is one line with its location, and nothing is changed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from django.core.management import CommandError

from tenants.config_file.schema import parse_file
from tenants.config_file.yaml_loader import MAX_BYTES
from tests.support.clients import HeadEnd
from tests.support.configuration_files import (
    BASE64,
    KEY_0,
    SECRET,
    SECRETS,
    SERVICE_0,
    at_secret,
    key,
    rows,
    service,
    tenant,
)


def deep(levels: int) -> str:
    return "tenants: " + "[" * levels + "]" * levels


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
        "users: unknown member; must be one of staff, tenants",
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
        (entry,) = parse_file(yaml.safe_dump(at_secret(reference)).encode()).tenants
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
