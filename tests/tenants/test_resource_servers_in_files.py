"""Resource servers in the files of `apply` and `export`."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.test import Client

from tenants.models import ResourceServer
from tests.support.clients import HeadEnd
from tests.support.configuration_files import rows, tenant
from tests.support.events import capture_events, check_no_secret

pytestmark = pytest.mark.django_db

CLIENT_SECRET = "0123456789abcdef" * 4
PATH = "tenants[0].resource_servers[0]"
Apply = Callable[..., list[str]]


def resource_server(**changes: Any) -> dict[str, Any]:
    members = {"client_id": "nagra~recorder", "name": "Recorder", "secret": {"text": CLIENT_SECRET}}
    return {name: value for name, value in (members | changes).items() if value is not None}


def file_with(*resource_servers: Any) -> dict[str, Any]:
    return tenant(services=[], keys=[], resource_servers=list(resource_servers))


def introspect(secret: str = CLIENT_SECRET) -> int:
    form = {"token": "x", "client_id": "nagra~recorder", "client_secret": secret}
    body = "&".join(f"{name}={value}" for name, value in form.items())
    answer = Client().post("/oauth/introspect", body, content_type="application/x-www-form-urlencoded")
    return answer.status_code


def export() -> str:
    out = io.StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


def test_apply_creates_a_resource_server_that_can_introspect(apply: Apply) -> None:
    assert apply(file_with(resource_server())) == ["+ tenant nagra", "+ resource server nagra~recorder"]
    assert introspect() == 200
    assert introspect(CLIENT_SECRET + "0") == 401
    before = rows()
    assert apply(file_with(resource_server())) == ["nothing to do"]
    assert rows() == before


def test_apply_changes_its_name_and_disables_it(apply: Apply, pass_time: Callable[[float], None]) -> None:
    apply(file_with(resource_server()))
    changed = resource_server(name="Player", enabled=False, secret=None)
    assert apply(file_with(changed), "--dry-run")[-1] == "dry run: nothing was saved"
    assert introspect() == 200
    assert apply(file_with(changed)) == [
        "~ resource server nagra~recorder: name Recorder -> Player, enabled on -> off"
    ]
    pass_time(3)
    assert introspect() == 401


def test_each_change_is_an_event_without_the_secret(apply: Apply) -> None:
    apply(tenant(services=[], keys=[]))
    for document in (file_with(resource_server()), file_with(resource_server(name="Player"))):
        (event,) = capture_events(lambda document=document: apply(document))  # type: ignore[misc]
        assert (event.kind, event.actor, event.details["object"]) == (
            "configuration_changed",
            "a command",
            "nagra~recorder",
        )
    check_no_secret(CLIENT_SECRET)


def test_another_secret_is_refused_and_says_how_to_replace_it(apply: Apply) -> None:
    apply(file_with(resource_server()))
    with pytest.raises(CommandError) as raised:
        apply(file_with(resource_server(name="Player", secret={"text": CLIENT_SECRET[::-1]})))
    assert str(raised.value) == (
        f"{PATH}.secret: differs from the stored secret: add another resource server to replace it"
    )
    assert ResourceServer.unscoped.get().name == "Recorder"
    assert introspect() == 200


def test_its_secret_may_be_omitted_or_its_variable_not_set(apply: Apply) -> None:
    apply(file_with(resource_server()))
    for secret in (None, {"env": "NOT_SET"}):
        assert apply(file_with(resource_server(secret=secret))) == ["nothing to do"]


def test_an_export_recreates_it_in_an_empty_database(
    apply: Apply, nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(file_with(resource_server(enabled=False), resource_server(client_id="nagra~Z.1", name="off")))
    made = ResourceServer(tenant_id="nagra", name="Made in the admin")
    made_secret = made.set_credentials()
    made.save()
    text = export()
    assert CLIENT_SECRET not in text
    assert made_secret not in text
    before = list(ResourceServer.unscoped.order_by("client_id").values("client_id", "enabled", "secret_hash"))
    assert apply(text) == ["nothing to do"]
    ResourceServer.unscoped.all().delete()
    with pytest.raises(CommandError, match=r"resource_servers\[0\]\.secret\.env: the variable .* is not set"):
        apply(text)
    for entry in yaml.safe_load(text)["tenants"][0]["resource_servers"]:
        secret = made_secret if entry["client_id"] == made.client_id else CLIENT_SECRET
        monkeypatch.setenv(entry["secret"]["env"], secret)
    assert len(apply(text)) == 3
    after = list(ResourceServer.unscoped.order_by("client_id").values("client_id", "enabled", "secret_hash"))
    assert after == before
    assert export() == text


def test_the_file_of_another_tenant_changes_nothing_here(apply: Apply) -> None:
    apply(file_with(resource_server()))
    with pytest.raises(CommandError) as raised:
        apply({"tenants": [{"id": "sunrise", "name": "S", "resource_servers": [resource_server()]}]})
    assert str(raised.value).startswith(f"{PATH}.client_id: Must be sunrise~, then 1 to 63 letters")
    assert ResourceServer.unscoped.get().tenant_id == "nagra"


ERRORS: dict[str, tuple[Any, str]] = {
    "no list": ({}, "tenants[0].resource_servers: must be a list"),
    "no mapping": (["x"], f"{PATH}: must be a mapping"),
    "no client ID": ([{"name": "x"}], f"{PATH}.client_id: missing"),
    "a number": ([resource_server(client_id=1)], f"{PATH}.client_id: must be a string"),
    "an unknown member": (
        [resource_server(secret_hash="x")],
        f"{PATH}.secret_hash: unknown member; must be one of client_id, enabled, name, secret",
    ),
    "a duplicate": (
        [resource_server(), resource_server(name="x")],
        f"tenants[0].resource_servers[1].client_id: duplicate of {PATH}.client_id",
    ),
    "no secret": ([resource_server(secret=None)], f"{PATH}.secret: missing"),
    "a secret in plain text": ([resource_server(secret=CLIENT_SECRET)], f"{PATH}.secret: must be one of"),
    "a variable that is not set": (
        [resource_server(secret={"env": "NOT_SET"})],
        f"{PATH}.secret.env: the variable NOT_SET is not set",
    ),
    "a file that does not exist": ([resource_server(secret={"file": "gone"})], f"{PATH}.secret.file: cannot"),
    "bytes": ([resource_server(secret={"base64": "/w=="})], f"{PATH}.secret: the decoded value is not UTF-8"),
    "a short secret": ([resource_server(secret={"text": "x" * 42})], f"{PATH}.secret: Must be 43 to 256"),
    "a long secret": ([resource_server(secret={"text": "x" * 257})], f"{PATH}.secret: Must be 43 to 256"),
    "a secret with a space": (
        [resource_server(secret={"text": f"{CLIENT_SECRET} x"})],
        f"{PATH}.secret: Must be 43 to 256",
    ),
    "a client ID without a tenant": ([resource_server(client_id="recorder")], f"{PATH}.client_id: Must be"),
    "a client ID that ends": ([resource_server(client_id="nagra~")], f"{PATH}.client_id: Must be"),
    "a client ID with a colon": ([resource_server(client_id="nagra~a:b")], f"{PATH}.client_id: Must be"),
    "a long client ID": ([resource_server(client_id="nagra~" + "a" * 64)], f"{PATH}.client_id: Must be"),
    "no name": ([resource_server(name=None)], f"{PATH}.name: This field cannot be blank"),
    "a long name": ([resource_server(name="x" * 201)], f"{PATH}.name: Ensure this value has at most 200"),
}


@pytest.mark.parametrize(("members", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_its_location_and_changes_nothing(apply: Apply, members: Any, expected: str) -> None:
    with pytest.raises(CommandError) as raised:
        apply(tenant(resource_servers=members))
    message = str(raised.value)
    assert message.startswith(expected), message
    assert "\n" not in message
    assert CLIENT_SECRET not in message
    assert rows() == []
