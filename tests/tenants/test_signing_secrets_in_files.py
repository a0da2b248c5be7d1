"""The secret of the first signing key in the files of `apply` and `export`."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from tenants.models import Key, Service, SigningKey, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.configuration_files import tenant
from tests.support.events import capture_events, check_no_secret

pytestmark = pytest.mark.django_db

SIGNING_SECRET = "the secret that the platform has, 42 bytes"
PATH = "tenants[0].signing_secret"
Apply = Callable[..., list[str]]


def hs256(**changes: Any) -> dict[str, Any]:
    members = {"signing_algorithm": "HS256", "signing_secret": {"text": SIGNING_SECRET}}
    return tenant(**members | {"services": [], "keys": []} | changes)


def export() -> str:
    out = io.StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


def keys() -> list[Any]:
    return list(SigningKey.unscoped.order_by("pk").values())


def test_the_first_signing_key_of_a_tenant_has_the_secret(apply: Apply) -> None:
    events = capture_events(lambda: apply(hs256()))
    assert [event.details["model"] for event in events] == ["tenant", "signingkey"]
    check_no_secret(SIGNING_SECRET)
    (key,) = SigningKey.unscoped.all()
    assert (key.algorithm, key.state, key.secret()) == ("HS256", "active", SIGNING_SECRET.encode())


def test_for_an_existing_tenant_it_is_only_compared(apply: Apply) -> None:
    apply(hs256())
    before = keys()
    for secret in ({"text": SIGNING_SECRET}, {"env": "NOT_SET"}, None):
        assert apply(hs256(signing_secret=secret)) == ["nothing to do"]
    with pytest.raises(CommandError) as raised:
        apply(hs256(name="Changed", signing_secret={"text": SIGNING_SECRET[::-1]}))
    assert str(raised.value) == (
        f"{PATH}: differs from the stored secret: rotate with manage.py rotate_signing_key --secret-env"
    )
    assert keys() == before
    assert Tenant.objects.get().name == "Nagra"


def test_a_file_never_changes_the_state_of_a_signing_key(apply: Apply) -> None:
    apply(hs256())
    SigningKey.generate(Tenant.objects.get()).save()
    before = keys()
    assert apply(hs256()) == ["nothing to do"]
    assert apply(hs256(signing_algorithm="ES256", signing_secret=None)) == [
        "~ tenant nagra: signing_algorithm HS256 -> ES256"
    ]
    *old, standby = keys()
    assert old == before
    assert (standby["algorithm"], standby["state"]) == ("ES256", "staged")


def test_a_revoked_secret_is_not_accepted(apply: Apply) -> None:
    apply(hs256())
    SigningKey.unscoped.get().save_restriction(state="revoked")
    with pytest.raises(CommandError, match="differs from the stored secret"):
        apply(hs256())


def test_an_export_recreates_a_tenant_whose_tokens_the_platform_accepts(
    apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(hs256())
    text = export()
    assert SIGNING_SECRET not in text
    reference = yaml.safe_load(text)["tenants"][0]["signing_secret"]
    assert reference == {"env": "AGS_SECRET__NAGRA__SIGNING__KEY__SECRET", "encoding": "base64"}
    assert apply(text) == ["nothing to do"]
    for model in (SigningKey, Key, Service, Tenant):
        model._base_manager.all().delete()
    with pytest.raises(CommandError, match="SIGNING__KEY__SECRET is not set"):
        apply(text)
    monkeypatch.setenv(reference["env"], base64.b64encode(SIGNING_SECRET.encode()).decode())
    assert apply(text) == ["+ tenant nagra"]
    assert SigningKey.unscoped.get().secret() == SIGNING_SECRET.encode()
    assert export() == text


def test_a_tenant_with_es256_has_none(apply: Apply, nagra: HeadEnd) -> None:
    assert "signing_secret" not in export()
    assert ClientApp(nagra).sign_on().status_code == 201


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "with ES256": ({"signing_algorithm": "ES256"}, f"{PATH}: accepted with signing_algorithm HS256 only"),
    "without an algorithm": ({"signing_algorithm": None}, f"{PATH}: accepted with signing_algorithm HS256"),
    "in plain text": ({"signing_secret": SIGNING_SECRET}, f"{PATH}: must be one of"),
    "a variable that is not set": ({"signing_secret": {"env": "NOT_SET"}}, f"{PATH}.env: the variable"),
    "a short secret": ({"signing_secret": {"text": "short"}}, f"{PATH}: HS256 needs a secret of at least 32"),
    "signing keys": ({"signing_keys": []}, "tenants[0].signing_keys: unknown member"),
}


@pytest.mark.parametrize(("changes", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_its_location_and_changes_nothing(
    apply: Apply, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(CommandError) as raised:
        apply(hs256(**changes))
    assert str(raised.value).startswith(expected), raised.value
    assert SIGNING_SECRET not in str(raised.value)
    assert keys() == []
