"""The standby key: published before it is needed, and replaced when it is used."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from tenants import rotation
from tenants.models import Tenant
from tenants.models.signing_key import PUBLICATION_LEAD_TIME
from tenants.rotation import RotationTooEarly
from tests.support.clients import HeadEnd
from tests.support.sign_ons import shift_signing_keys
from tests.support.signing_keys import (
    activate_standby,
    get_published_kids,
    get_signing_key,
    get_states,
    set_algorithm,
    stage_shared_secret,
)


def test_a_job_every_hour_retires_one_key_at_a_time(nagra: HeadEnd) -> None:
    """Also while tokens are valid for longer than it waits."""
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 10_000
    tenant.save()
    steps = []
    for _ in range(9):
        shift_signing_keys(timedelta(hours=1))
        try:
            steps.append(rotation.perform_next_step("nagra")[0].split(";")[0])
        except RotationTooEarly:
            steps.append("too early")
        assert get_states().count("retiring") <= 1
        assert get_states().count("staged") == 1
    assert steps == ["signs from now on", "too early", "too early", "revoked"] * 2 + ["signs from now on"]


def test_key_without_a_standby_key_is_replaced_by_a_new_one(nagra: HeadEnd) -> None:
    """As after an earlier release."""
    get_signing_key("staged").delete()
    rotation.revoke(get_signing_key("active"))
    assert get_states() == ["revoked", "active", "staged"]


def test_revoked_standby_key_is_replaced_and_never_signs(nagra: HeadEnd) -> None:
    active, staged = get_signing_key("active").kid, get_signing_key("staged")
    rotation.revoke(staged)
    assert get_signing_key("staged").kid != staged.kid
    assert (get_signing_key("active").kid, get_published_kids()) == (
        active,
        [get_signing_key("staged").kid, active],
    )


def test_new_standby_key_signs_early_only_in_an_emergency(nagra: HeadEnd) -> None:
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    rotation.revoke(get_signing_key("active"))
    standby = get_signing_key("staged")
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {standby.kid}"):
        rotation.perform_next_step("nagra")
    rotation.revoke(get_signing_key("active"))
    assert get_signing_key("active") == standby


def test_change_of_algorithm_activates_no_key_of_the_old_one(nagra: HeadEnd) -> None:
    shift_signing_keys(PUBLICATION_LEAD_TIME)
    set_algorithm("HS256")
    message, new = rotation.perform_next_step("nagra")
    assert (message.split(";")[0], new.algorithm) == ("published", "HS256")
    assert get_states() == ["active", "staged", "staged"]
    assert activate_standby() == new
    assert get_states() == ["retiring", "revoked", "active"]


def test_algorithm_that_is_changed_back_keeps_its_standby_key(nagra: HeadEnd) -> None:
    standby = get_signing_key("staged")
    unused = stage_shared_secret()
    set_algorithm("ES256")
    assert activate_standby() == standby
    unused.refresh_from_db()
    assert unused.state == "revoked"
    assert get_signing_key("staged").algorithm == "ES256"


def test_change_of_algorithm_is_undone_while_the_first_key_is_retiring(nagra: HeadEnd) -> None:
    shared = stage_shared_secret()
    assert activate_standby() == shared
    first = get_signing_key("retiring")
    set_algorithm("ES256")
    standby = get_signing_key("staged")
    with pytest.raises(RotationTooEarly, match=f"verifiers may not have fetched {standby.kid}"):
        rotation.perform_next_step("nagra")
    shift_signing_keys(timedelta(minutes=11))
    assert rotation.perform_next_step("nagra") == ("signs from now on", standby)
    for key in (first, shared):
        key.refresh_from_db()
        assert key.state == "retiring"


def test_emergency_during_a_change_of_algorithm_keeps_the_algorithm(nagra: HeadEnd) -> None:
    """Verifiers have the standby key; the platform may not have the secret yet."""
    standby = get_signing_key("staged")
    shared = stage_shared_secret()
    assert rotation.revoke(get_signing_key("active")) is None
    assert get_signing_key("active") == standby
    assert rotation.revoke(get_signing_key("active")) is None
    assert get_signing_key("active") == shared
    assert rotation.revoke(get_signing_key("active")) == get_signing_key("active"), (
        "created: its secret has to be given"
    )
    assert get_states() == ["revoked", "revoked", "revoked", "active"]


def test_disabled_tenant_gets_its_standby_key_when_it_is_enabled(nagra: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    rotation.revoke(get_signing_key("active"))
    assert get_states() == ["revoked", "active"]
    tenant.enabled = True
    tenant.save()
    assert get_states() == ["revoked", "active", "staged"]
    assert get_signing_key("staged").may_sign_at() > timezone.now()


def test_migrate_publishes_the_standby_keys_of_earlier_releases(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    get_signing_key("staged").delete()
    before = get_published_kids("sunrise")
    version = Tenant.objects.get(pk="nagra").version
    encryption_keys = settings.AGS_ENCRYPTION_KEYS
    settings.AGS_ENCRYPTION_KEYS = (bytes(range(100, 132)),)
    call_command("migrate", verbosity=0)
    assert get_states() == ["active"], "the servers could not decrypt it"
    settings.AGS_ENCRYPTION_KEYS = encryption_keys
    for _ in range(2):
        call_command("migrate", verbosity=0)
        assert get_states() == ["active", "staged"]
    assert Tenant.objects.get(pk="nagra").version > version, "so that servers read it again"
    assert (len(get_published_kids()), get_published_kids("sunrise")) == (2, before)
