"""The pages of signing keys: rotated step by step, never too fast; revoked; their secrets shown once."""

import base64
import re
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from tenants.models import KeyState, SigningKey, Tenant
from tenants.snapshot import snapshot
from tenants.times import format_utc
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import TENANT_FORM, person

LIST = "/admin/tenants/signingkey/"
ROTATE = "/admin/tenants/tenant/nagra/rotate/"


def text(response: Any) -> str:
    return response.content.decode()


def keys() -> dict[str, SigningKey]:
    """The keys of nagra by their state."""
    return {key.state: key for key in SigningKey.objects.for_tenant("nagra")}


def shown(response: Any, name: str) -> str | None:
    found = re.search(rf'<code id="{name}"[^>]*>([^<]+)</code>', text(response))
    return found and found.group(1)


def wait(**columns: timedelta) -> None:
    """Let time go by for the keys of nagra."""
    for key in SigningKey.objects.for_tenant("nagra"):
        moved = {name: getattr(key, name) and getattr(key, name) - by for name, by in columns.items()}
        SigningKey.objects.for_tenant("nagra").filter(pk=key.pk).update(**moved)


def test_a_rotation_is_walked_through_and_never_too_fast(
    admin_client: Client, nagra: HeadEnd, app: ClientApp
) -> None:
    app.sign_on()
    first, second = keys()[KeyState.ACTIVE], keys()[KeyState.STAGED]
    question = text(admin_client.get(ROTATE))
    assert f"{first.kid} (ES256) is active: it signs." in question
    assert f"{second.kid} (ES256) is published and can sign from" in question
    assert len(keys()) == 2

    log = LogEntry.objects.count()
    told = text(admin_client.post(ROTATE, follow=True))
    assert f"Not done. Too early: verifiers may not have fetched {second.kid}" in told
    assert keys()[KeyState.STAGED] == second
    assert LogEntry.objects.count() == log

    wait(published_at=timedelta(minutes=11))
    assert f"{second.kid}: signs from now on." in text(admin_client.post(ROTATE, follow=True))
    assert (keys()[KeyState.ACTIVE], keys()[KeyState.RETIRING]) == (second, first)
    assert keys()[KeyState.STAGED] not in (first, second)
    assert f"{first.kid} (ES256) has signed tokens that are valid until" in text(admin_client.get(ROTATE))
    snapshot.invalidate("nagra")
    assert jwt.get_unverified_header(app.refresh().json()["access_token"])["kid"] == second.kid

    assert f"Too early: tokens signed by {first.kid}" in text(admin_client.post(ROTATE, follow=True))
    wait(needed_until=timedelta(hours=2))
    assert f"{first.kid}: revoked" in text(admin_client.post(ROTATE, follow=True))
    assert keys()[KeyState.REVOKED] == first
    changes = admin_client.get(f"{LIST}{first.pk}/history/").context["changes"]
    assert [change.user for change in changes[:2]] == ["admin", "admin"]


def test_the_page_of_a_key_rotates_too(admin_client: Client, nagra: HeadEnd) -> None:
    first, second = keys()[KeyState.ACTIVE], keys()[KeyState.STAGED]
    address = f"{LIST}{first.pk}/rotate/"
    assert address in text(admin_client.get(f"{LIST}{first.pk}/change/"))
    wait(published_at=timedelta(minutes=11))
    assert f"{second.kid}: signs from now on." in text(admin_client.post(address, follow=True))
    assert keys()[KeyState.ACTIVE] == second


def test_a_generated_secret_is_shown_once(admin_client: Client, nagra: HeadEnd, app: ClientApp) -> None:
    keys()[KeyState.STAGED].delete()
    Tenant.objects.update(signing_algorithm="HS256")
    answer = admin_client.post(ROTATE)
    assert "no-store" in answer["Cache-Control"]
    key = keys()[KeyState.STAGED]
    assert shown(answer, "kid") == key.kid
    secret = shown(answer, "secret")
    assert secret is not None
    assert base64.b64decode(secret) == key.secret()
    for address in (f"{LIST}{key.pk}/change/", f"{LIST}{key.pk}/history/", LIST, "/admin/", ROTATE):
        assert secret not in text(admin_client.get(address))
    assert not any(secret in str(vars(entry)) for entry in LogEntry.objects.all())
    wait(published_at=timedelta(minutes=11))
    answer = admin_client.post(ROTATE, follow=True)
    assert shown(answer, "secret") is None
    snapshot.invalidate("nagra")
    app.sign_on()
    claims = jwt.decode(app.tokens["access_token"], base64.b64decode(secret), ["HS256"], audience="nagra")
    assert claims["accountId"] == "account-1"


def test_a_tenant_that_shares_a_secret_is_shown_its_first(admin_client: Client, db: None) -> None:
    form = {**TENANT_FORM, "id": "nova", "name": "Nova", "enabled": "on"}
    answer = admin_client.post("/admin/tenants/tenant/add/", {**form, "signing_algorithm": "HS256"})
    secret = shown(answer, "secret")
    assert secret is not None
    assert base64.b64decode(secret) == SigningKey.objects.for_tenant("nova").get(state="active").secret()
    other = admin_client.post(
        "/admin/tenants/tenant/add/", {**form, "id": "n2", "signing_algorithm": "ES256"}
    )
    assert other.status_code == 302


def test_revoking_the_key_that_signs_puts_the_standby_key_in_its_place(
    admin_client: Client, nagra: HeadEnd, app: ClientApp
) -> None:
    app.sign_on()
    first, second = keys()[KeyState.ACTIVE], keys()[KeyState.STAGED]
    address = f"{LIST}{first.pk}/revoke/"
    question = text(admin_client.get(address))
    assert f"The staged key {second.kid} signs from now on." in question
    assert format_utc(second.published_at) in question
    assert "Another key is published" in question
    assert "Sign-ons continue" in question
    told = text(admin_client.post(address, follow=True))
    assert f"Signing key {first.kid} of nagra is revoked." in told
    assert address not in told
    assert keys() | {KeyState.STAGED: None} == {
        KeyState.REVOKED: first,
        KeyState.ACTIVE: second,
        KeyState.STAGED: None,
    }
    snapshot.invalidate("nagra")
    assert app.sign_out().status_code == 401, "its access token was signed with the revoked key"
    assert app.refresh().status_code == 200
    assert app.sign_out().status_code == 200


def test_without_a_standby_key_a_new_one_takes_the_place(admin_client: Client, nagra: HeadEnd) -> None:
    first, second = keys()[KeyState.ACTIVE], keys()[KeyState.STAGED]
    question = text(admin_client.get(f"{LIST}{second.pk}/revoke/"))
    assert "Another key is published" in question
    assert "signs from now on" not in question
    second.delete()
    assert "A new key is generated and signs from now on" in text(
        admin_client.get(f"{LIST}{first.pk}/revoke/")
    )
    admin_client.post(f"{LIST}{first.pk}/revoke/")
    assert set(keys()) == {KeyState.REVOKED, KeyState.ACTIVE, KeyState.STAGED}


def test_the_secret_of_the_one_that_takes_the_place_is_shown(admin_client: Client, nagra: HeadEnd) -> None:
    keys()[KeyState.STAGED].delete()
    Tenant.objects.update(signing_algorithm="HS256")
    (first,) = keys().values()
    address = f"{LIST}{first.pk}/revoke/"
    assert "until the platform has it, the platform refuses every access token" in text(
        admin_client.get(address)
    )
    answer = admin_client.post(address)
    secret = shown(answer, "secret")
    assert secret is not None
    assert base64.b64decode(secret) == keys()[KeyState.ACTIVE].secret()
    assert LogEntry.objects.filter(object_id=str(first.pk)).exists()


def test_the_list_tells_states_and_moments_and_takes_no_additions(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    listed = admin_client.get(LIST, {"tenant__id__exact": "nagra"})
    assert len(listed.context["cl"].result_list) == 2
    assert all(word in text(listed) for word in ("staged", "active", "Needed until", "Published at"))
    assert "/add/" not in text(listed)
    assert f"{LIST}?tenant__id__exact=nagra" in text(admin_client.get("/admin/tenants/tenant/nagra/change/"))
    first = SigningKey.objects.for_tenant("sunrise").get(state="active")
    assert admin_client.post(LIST + "add/", {}).status_code == 403
    for act in ("change", "delete"):
        assert admin_client.post(f"{LIST}{first.pk}/{act}/", {"state": "revoked"}).status_code == 403


@pytest.mark.parametrize("group", ["support", "auditor"])
def test_only_operator_staff_may_rotate_and_revoke(nagra: HeadEnd, group: str) -> None:
    browser = person(group, "nagra")
    key = keys()[KeyState.ACTIVE]
    addresses = (ROTATE, f"{LIST}{key.pk}/rotate/", f"{LIST}{key.pk}/revoke/")
    pages = text(browser.get("/admin/tenants/tenant/nagra/change/")) + text(
        browser.get(f"{LIST}{key.pk}/change/")
    )
    for address in addresses:
        assert address not in pages
        for method in (browser.get, browser.post):
            assert method(address).status_code == 403
    assert set(keys()) == {KeyState.ACTIVE, KeyState.STAGED}
    allowed = person("operator staff", "nagra")
    for address in addresses[1:]:
        assert allowed.post(address).status_code == 302
