"""`checkservice` and the admin button "Check configuration": nothing is issued."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from ags.sessions.models import SessionToken
from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.staff import person


def check(*arguments: str) -> tuple[str, str]:
    """Return the output of the command and its error message."""
    out = io.StringIO()
    try:
        call_command("checkservice", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


GOOD = "ok   The settings are complete and valid.\nok   Keys in force: nagra-key-1.\n"


def test_a_working_service_passes(nagra: HeadEnd) -> None:
    assert check("nagra", SERVICE) == (GOOD, "")
    assert not SessionToken.unscoped.exists()


def test_a_failed_check_is_reported_and_fails_the_command(nagra: HeadEnd) -> None:
    Key.unscoped.update(state="revoked")
    output, error = check("nagra", SERVICE)
    assert output.endswith("BAD  The tenant has no shared secret in force, so no token can be accepted.\n")
    assert error == "1 check failed: subscribers would be unable to sign on."


def test_without_a_name_every_enabled_service_is_checked(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    Service.objects.for_tenant("nagra").update(settings={"clock_skew": 1000})
    sunrise_output = f"sunrise, {SERVICE}:\n{GOOD.replace('nagra', 'sunrise')}"
    output, error = check()
    assert output.startswith(f"nagra, {SERVICE}:\nBAD  Setting clock_skew: ")
    assert output.endswith(sunrise_output)
    assert error == "1 check failed: subscribers would be unable to sign on."
    assert check("sunrise") == (sunrise_output, "")
    Service.objects.for_tenant("nagra").update(enabled=False)
    assert check() == (sunrise_output, "")
    assert check("nagra") == ("", "Tenant nagra has no enabled service.")
    Tenant.objects.update(enabled=False)
    assert check() == ("", "There is no enabled service.")


def test_a_disabled_service_can_be_checked(nagra: HeadEnd) -> None:
    Service.unscoped.update(enabled=False)
    output, error = check("nagra", SERVICE)
    assert "note The service or its tenant is disabled, so nobody can use it.\n" in output
    assert not error


def test_an_invalid_setting_is_named(nagra: HeadEnd) -> None:
    Service.unscoped.update(settings={"clock_skew": 1000})
    output, error = check("nagra", SERVICE)
    assert output.startswith("BAD  Setting clock_skew: ")
    assert error


def test_a_provider_that_is_not_installed_is_named(nagra: HeadEnd) -> None:
    Service.unscoped.update(strategy="gone")
    assert check("nagra", SERVICE)[0] == "BAD  The provider gone is not installed.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nagra", "No such"), f"Tenant nagra has no service 'No such'. Its services: {SERVICE}."),
        (("nobody", SERVICE), f"Tenant nobody has no service '{SERVICE}'. Its services: none."),
    ],
)
def test_an_unknown_service_is_reported(nagra: HeadEnd, arguments: tuple[str, str], message: str) -> None:
    assert check(*arguments) == ("", message)


def test_the_button_checks_the_service_after_confirmation(admin_client: Client, nagra: HeadEnd) -> None:
    address = f"/admin/tenants/service/{Service.unscoped.get().pk}/check-configuration/"
    confirmation = admin_client.get(address).content.decode()
    assert "Nothing is issued and nothing is changed." in confirmation
    assert "Keys in force" not in confirmation
    Key.unscoped.update(state="revoked")
    results = admin_client.post(address).content.decode()
    assert "The settings are complete and valid." in results
    assert "The tenant has no shared secret in force" in results
    assert not SessionToken.unscoped.exists()


def test_view_permission_is_not_enough_to_check_a_service(nagra: HeadEnd) -> None:
    address = f"/admin/tenants/service/{Service.unscoped.get().pk}/check-configuration/"
    assert person("auditor", "nagra").post(address).status_code == 403
