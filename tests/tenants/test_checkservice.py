"""Trying a service: by a command or by a button, in words, with nothing issued."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from ags.sessions.models import SessionToken
from tenants.models import Key, Service, Tenant
from tests.conftest import SERVICE, HeadEnd, person


def check(*words: str) -> tuple[str, str]:
    """What the command has printed, and why it failed."""
    out = io.StringIO()
    try:
        call_command("checkservice", *words, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


GOOD = "ok   The settings are complete, and each is of its form.\nok   Keys in force: nagra-key-1.\n"


def test_a_service_that_works_is_good(nagra: HeadEnd) -> None:
    assert check("nagra", SERVICE) == (GOOD, "")
    assert not SessionToken.unscoped.exists()


def test_what_would_keep_subscribers_out_is_bad_and_fails(nagra: HeadEnd) -> None:
    Key.unscoped.update(state="revoked")
    told, why = check("nagra", SERVICE)
    assert told.endswith("BAD  The tenant has no key in force: no token can be accepted.\n")
    assert why == "1 of these would keep subscribers out."


def test_without_a_name_every_enabled_service_is_tried(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(settings={"clock_skew": 1000})
    of_sunrise = f"sunrise, {SERVICE}:\n{GOOD.replace('nagra', 'sunrise')}"
    told, why = check()
    assert told.startswith(f"nagra, {SERVICE}:\nBAD  Setting clock_skew: ")
    assert told.endswith(of_sunrise)
    assert why == "1 of these would keep subscribers out."
    assert check("sunrise") == (of_sunrise, "")
    Service.objects.for_tenant("nagra").update(enabled=False)
    assert check() == (of_sunrise, "")
    assert check("nagra") == ("", "Tenant nagra has no enabled service.")
    Tenant.objects.update(enabled=False)
    assert check() == ("", "There is no enabled service.")


def test_it_can_be_tried_before_it_is_enabled(nagra: HeadEnd) -> None:
    Service.unscoped.update(enabled=False)
    told, why = check("nagra", SERVICE)
    assert "note It is disabled, or its tenant is: nobody can use it yet.\n" in told
    assert not why


def test_a_setting_that_its_form_does_not_accept_is_named(nagra: HeadEnd) -> None:
    Service.unscoped.update(settings={"clock_skew": 1000})
    told, why = check("nagra", SERVICE)
    assert told.startswith("BAD  Setting clock_skew: ")
    assert why


def test_a_provider_that_is_gone_is_named(nagra: HeadEnd) -> None:
    Service.unscoped.update(strategy="gone")
    assert check("nagra", SERVICE)[0] == "BAD  The provider gone is not installed here.\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nagra", "No such"), f"Tenant nagra has no service 'No such'. It has: {SERVICE}."),
        (("nobody", SERVICE), f"Tenant nobody has no service '{SERVICE}'. It has: none."),
    ],
)
def test_a_service_that_is_not_there_is_said_so(nagra: HeadEnd, words: tuple[str, str], told: str) -> None:
    assert check(*words) == ("", told)


def test_a_button_does_the_same_once_it_is_confirmed(admin_client: Client, nagra: HeadEnd) -> None:
    address = f"/admin/tenants/service/{Service.unscoped.get().pk}/check-configuration/"
    asked = admin_client.get(address).content.decode()
    assert "Nothing is issued, and nothing is changed." in asked
    assert "Keys in force" not in asked
    Key.unscoped.update(state="revoked")
    found = admin_client.post(address).content.decode()
    assert "The settings are complete, and each is of its form." in found
    assert "The tenant has no key in force" in found
    assert not SessionToken.unscoped.exists()


def test_whoever_may_only_look_cannot_make_ags_ask(nagra: HeadEnd) -> None:
    address = f"/admin/tenants/service/{Service.unscoped.get().pk}/check-configuration/"
    assert person("auditor", "nagra").post(address).status_code == 403
