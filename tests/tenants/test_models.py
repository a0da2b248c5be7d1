"""Tenants, services and keys: validation, immutable values, and a new version with every change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from tenants.models import Key, KeyState, Service, Tenant
from tenants.secrets import key_material
from tests.support.clients import SERVICE, HeadEnd
from tests.support.operators import add_key

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def version(tenant_id: str = "nagra") -> int:
    return Tenant.objects.get(pk=tenant_id).version


def key_of(head_end: HeadEnd) -> Key:
    return Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)


def errors_of(problem: pytest.ExceptionInfo[ValidationError]) -> dict[str, list[str]]:
    return problem.value.message_dict


# Tenants and services


@pytest.mark.parametrize("tenant_id", ["n", "0", "a.b_c-D", "x" * 64])
def test_a_tenant_id_that_is_valid_in_a_header(db: None, tenant_id: str) -> None:
    Tenant(id=tenant_id, name="x").save()
    assert Tenant.objects.get().pk == tenant_id


@pytest.mark.parametrize("tenant_id", ["", ".a", "-a", "a b", "a,b", "é", "x" * 65, "a\n", "a/b"])
def test_a_tenant_id_that_is_not_valid_in_a_header_is_rejected(db: None, tenant_id: str) -> None:
    with pytest.raises(ValidationError) as problem:
        Tenant(id=tenant_id, name="x").save()
    assert list(errors_of(problem)) == ["id"]
    assert not Tenant.objects.exists()


def new_service(**fields: Any) -> Service:
    valid = {"tenant_id": "nagra", "name": "Second", "strategy": "operator_token", "display_name": "x"}
    return Service(**(valid | fields))


@pytest.mark.parametrize("name", ["x", "A b!~", "x" * 128])
def test_a_service_name_that_is_valid_in_a_header(nagra: HeadEnd, name: str) -> None:
    new_service(name=name, enabled=True).save()
    assert nagra.present(nagra.token(), x_auth_service_id=name).status_code == 200


@pytest.mark.parametrize(
    ("fields", "invalid_field"),
    [
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "x "}, "name"),
        ({"name": "a,b"}, "name"),
        ({"name": "é"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": SERVICE}, "__all__"),
        ({"display_name": ""}, "display_name"),
        ({"logo": "http://customer.example/x.png"}, "logo"),
        ({"logo": "javascript:alert(1)"}, "logo"),
        ({"strategy": "magic"}, "strategy"),
        ({"strategy": ""}, "strategy"),
        ({"settings": []}, "settings"),
        ({"settings": {"clock_skew": -1}}, "settings"),
        ({"settings": {"clock_skew": "much"}}, "settings"),
        ({"settings": {"session_token_ttl": 3601}}, "settings"),
        ({"settings": {"replay": "sometimes"}}, "settings"),
        ({"settings": {"nothing": 1}}, "settings"),
        ({"tenant_id": "nobody"}, "tenant"),
    ],
)
def test_a_service_that_requests_could_not_use_is_rejected(
    nagra: HeadEnd, fields: dict[str, Any], invalid_field: str
) -> None:
    before = version()
    with pytest.raises(ValidationError) as problem:
        new_service(**fields).save()
    assert list(errors_of(problem)) == [invalid_field]
    assert version() == before


def test_settings_are_stored_with_their_defaults(nagra: HeadEnd) -> None:
    service = new_service(settings={"clock_skew": "60"})
    service.save()
    service.refresh_from_db()
    assert service.settings == {
        "session_token_ttl": 300,
        "clock_skew": 60,
        "replay": "if_present",
        "max_lifetime": None,
    }


def test_a_kid_is_unique_within_its_tenant_only(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    add_key(HeadEnd("sunrise", nagra.kid, bytes(range(60, 100))))
    with pytest.raises(ValidationError, match="already exists"):
        add_key(nagra)
    with pytest.raises(IntegrityError), transaction.atomic():
        Key.unscoped.bulk_create([Key(tenant_id="nagra", kid=nagra.kid, sealed_secret=b"x")])


# Keys


def test_a_key_is_immutable(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    changes: dict[str, Any] = {
        "kid": "other",
        "algorithm": "HS384",
        "tenant_id": "sunrise",
        "sealed_secret": b"other",
    }
    for field, value in changes.items():
        key = key_of(nagra)
        setattr(key, field, value)
        with pytest.raises(ValidationError, match="create a new key to rotate"):
            key.save()
    key = key_of(nagra)
    key.set_secret(bytes(range(70, 110)))
    with pytest.raises(ValidationError, match="create a new key to rotate"):
        key.save()
    assert key_of(nagra).secret() == nagra.secret


def test_a_key_needs_a_secret(nagra: HeadEnd) -> None:
    with pytest.raises(ValidationError, match=r"A key needs a shared secret\."):
        Key(tenant_id="nagra", kid="bare").save()


@pytest.mark.parametrize("kid", ["", "a b", "a/b", "é", "x" * 129, "a\n"])
def test_an_invalid_kid_is_rejected(nagra: HeadEnd, kid: str) -> None:
    with pytest.raises(ValidationError) as problem:
        add_key(HeadEnd("nagra", kid, bytes(range(60, 100))))
    assert list(errors_of(problem)) == ["kid"]


SECRETS: dict[str, tuple[bytes, str, str]] = {
    "31 bytes": (bytes(range(31)), "HS256", "HS256 needs a secret of at least 32 bytes; this one has 31."),
    "47 bytes": (bytes(range(47)), "HS384", "HS384 needs a secret of at least 48 bytes; this one has 47."),
    "63 bytes": (bytes(range(63)), "HS512", "HS512 needs a secret of at least 64 bytes; this one has 63."),
    "none": (b"", "HS256", "HS256 needs a secret of at least 32 bytes; this one has 0."),
    "too many": (b"ab" * 513, "HS256", "A secret has at most 1024 bytes; this one has 1026."),
    "zeros": (bytes(32), "HS256", "All bytes of the secret are the same."),
    "one letter": (b"a" * 32, "HS256", "All bytes of the secret are the same."),
    "a PEM": (b"\n-----BEGIN RSA PRIVATE KEY-----\nMII", "HS256", "This is a PEM or SSH key"),
    "an SSH key": (b" ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ", "HS256", "This is a PEM or SSH key"),
    "an SSH key of a curve": (b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoY", "HS256", "This is a PEM or SSH key"),
    "a JWK": (b' {"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1"}', "HS256", "This is a JWK"),
}


@pytest.mark.parametrize(("secret", "algorithm", "reason"), SECRETS.values(), ids=SECRETS)
def test_an_invalid_secret_is_rejected(nagra: HeadEnd, secret: bytes, algorithm: str, reason: str) -> None:
    with pytest.raises(ValidationError) as problem:
        add_key(HeadEnd("nagra", "new", secret, algorithm))
    assert problem.value.messages[0].startswith(reason)
    assert not Key.objects.for_tenant("nagra").filter(kid="new").exists()


@pytest.mark.parametrize(("algorithm", "min_bytes"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_of_the_minimum_length_works(nagra: HeadEnd, algorithm: str, min_bytes: int) -> None:
    head_end = HeadEnd("nagra", "new", bytes(range(min_bytes)), algorithm)
    add_key(head_end)
    assert head_end.present(head_end.token()).status_code == 200
    assert len(key_material.generate(algorithm)) == min_bytes
    assert key_material.generate(algorithm) != key_material.generate(algorithm)


ENCODED: dict[str, tuple[str, str, bytes | None]] = {
    "text": ("\ufeff a é \r\n", "text", "a é".encode()),
    "invalid text": ("\ud800", "text", None),
    "base64": ("+/8=", "base64", b"\xfb\xff"),
    "base64 without padding": ("+/8", "base64", b"\xfb\xff"),
    "base64 in lines": ("+/\n8=\n", "base64", b"\xfb\xff"),
    "base64 that is base64url": ("-_8=", "base64", None),
    "base64 of half a byte": ("a", "base64", None),
    "base64 with padding inside": ("ab==cd==", "base64", None),
    "base64url": ("-_8", "base64url", b"\xfb\xff"),
    "base64url that is base64": ("+/8=", "base64url", None),
    "base64url that is not ASCII": ("é", "base64url", None),
}


@pytest.mark.parametrize(("text", "encoding", "secret"), ENCODED.values(), ids=ENCODED)
def test_a_secret_is_decoded_with_its_encoding(text: str, encoding: str, secret: bytes | None) -> None:
    if secret is not None:
        assert key_material.decode(text, encoding) == secret
        return
    with pytest.raises(ValidationError, match=r"The secret is not valid (text|base64|base64url)\."):
        key_material.decode(text, encoding)


@pytest.mark.parametrize(("before", "after"), [(before, after) for before in KeyState for after in KeyState])
def test_every_state_change_is_allowed_except_from_revoked(
    nagra: HeadEnd, before: KeyState, after: KeyState
) -> None:
    key = add_key(HeadEnd("nagra", "new", bytes(range(60, 100))), state=before)
    key.state = after
    if before == KeyState.REVOKED != after:
        with pytest.raises(ValidationError) as problem:
            key.save()
        assert list(errors_of(problem)) == ["state"]
        assert Key.unscoped.get(pk=key.pk).state == KeyState.REVOKED
    else:
        key.save()
        assert Key.unscoped.get(pk=key.pk).state == after


def test_a_row_that_was_loaded_before_a_change_cannot_undo_it(nagra: HeadEnd) -> None:
    loaded_before = key_of(nagra)
    key = key_of(nagra)
    key.state = KeyState.REVOKED
    key.save()
    loaded_before.not_after = NOON
    with pytest.raises(ValidationError, match="Changed by a command at "):
        loaded_before.save()
    loaded_before.save(update_fields=["not_after"])
    assert (key_of(nagra).state, key_of(nagra).not_after) == (KeyState.REVOKED, NOON)
    loaded_before.not_after = None
    loaded_before.save()


def test_two_changes_of_the_same_field_are_not_merged(nagra: HeadEnd) -> None:
    loaded_before = Tenant.objects.get(pk="nagra")
    Tenant.objects.get(pk="nagra").save_restriction(name="First")
    loaded_before.name = "Second"
    with pytest.raises(ValidationError, match="Changed by a command at "):
        loaded_before.save(update_fields=["name"])
    assert Tenant.objects.get(pk="nagra").name == "First"


@pytest.mark.parametrize(
    ("state", "status"), [("staged", 401), ("active", 200), ("retiring", 200), ("revoked", 401)]
)
def test_a_key_is_accepted_while_it_is_in_force(nagra: HeadEnd, state: str, status: int) -> None:
    head_end = HeadEnd("nagra", "new", bytes(range(60, 100)))
    add_key(head_end, state=state)
    assert head_end.present(head_end.token()).status_code == status


@pytest.mark.parametrize(
    ("not_before", "not_after", "status"),
    [
        (None, -60, 401),
        (None, 60, 200),
        (60, None, 401),
        (-60, None, 200),
        (-60, 60, 200),
        (-60, -30, 401),
        (30, 60, 401),
    ],
)
def test_a_key_is_accepted_between_its_dates(
    nagra: HeadEnd, not_before: int | None, not_after: int | None, status: int
) -> None:
    head_end = HeadEnd("nagra", "new", bytes(range(60, 100)))
    now = datetime.now(UTC)
    dates = {"not_before": not_before, "not_after": not_after}
    add_key(head_end, **{name: s and now + timedelta(seconds=s) for name, s in dates.items()})
    assert head_end.present(head_end.token()).status_code == status


def test_dates_must_be_in_order(nagra: HeadEnd) -> None:
    for not_after in (NOON, NOON - timedelta(seconds=1)):
        with pytest.raises(ValidationError) as problem:
            add_key(HeadEnd("nagra", "new", bytes(range(60, 100))), not_before=NOON, not_after=not_after)
        assert list(errors_of(problem)) == ["not_after"]


# Versions


def test_every_change_and_deletion_increments_the_version_of_the_tenant(
    nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    other_version = version("sunrise")
    seen = [version()]

    def assert_incremented() -> None:
        seen.append(version())
        assert seen[-1] > seen[-2]

    tenant = Tenant.objects.get(pk="nagra")
    tenant.name = "Nagra AG"
    tenant.save()
    assert_incremented()
    service = new_service()
    service.save()
    assert_incremented()
    service.display_name = "Changed"
    service.save(update_fields=["display_name"])
    assert_incremented()
    service.delete()
    assert_incremented()
    key = add_key(HeadEnd("nagra", "new", bytes(range(60, 100))))
    assert_incremented()
    key.state = KeyState.REVOKED
    key.save()
    assert_incremented()
    key.delete()
    assert_incremented()
    assert version("sunrise") == other_version


def test_saving_a_stale_row_does_not_restore_its_version(nagra: HeadEnd) -> None:
    loaded_before = Tenant.objects.get(pk="nagra")
    new_service().save()
    now = version()
    loaded_before.save()
    assert version() == now + 1


def test_a_failed_change_does_not_change_the_version(nagra: HeadEnd) -> None:
    before = version()
    key = key_of(nagra)
    key.algorithm = "none"
    with pytest.raises(ValidationError):
        key.save()
    with pytest.raises(ProtectedError):
        Tenant.objects.get(pk="nagra").delete()
    assert version() == before


def test_a_key_or_service_with_issued_tokens_cannot_be_deleted(nagra: HeadEnd) -> None:
    nagra.present(nagra.token())
    for row in (key_of(nagra), Service.objects.for_tenant("nagra").get()):
        with pytest.raises(ProtectedError):
            row.delete()


def test_the_history_contains_every_change_and_no_secret(nagra: HeadEnd) -> None:
    key = key_of(nagra)
    key.state = KeyState.RETIRING
    key.save()
    assert [record.state for record in key.history.all()] == ["retiring", "active"]
    (first, second) = key.history.values()
    assert not {"sealed_secret", "secret"} & (first.keys() | second.keys())
