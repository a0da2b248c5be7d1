"""The other operator cannot: one entry for each address of the API, and none may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.urls import URLPattern

from ags.sessions.models import Account, Device, SecurityEvent, SessionToken
from ags.urls import urlpatterns
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.conftest import SERVICE, TRIAL, ClientApp, HeadEnd, Platform, add_key, add_trial, platform

SECRET_SERVICE = "Only nagra has this"


@dataclass
class Both:
    """Nagra, whose things they are, and sunrise, who has everything of its own, and wants them."""

    nagra: HeadEnd
    sunrise: HeadEnd
    ours: ClientApp
    theirs: ClientApp
    our_platform: Platform
    their_platform: Platform


@pytest.fixture
def both(nagra: HeadEnd, sunrise: HeadEnd) -> Both:
    """Both have signed on, the same account by name."""
    Service(
        tenant_id="nagra",
        name=SECRET_SERVICE,
        strategy="operator_token",
        display_name=SECRET_SERVICE,
        enabled=True,
    ).save()
    add_trial("nagra")
    ours, theirs = ClientApp(nagra), ClientApp(sunrise)
    platforms = platform("nagra"), platform("sunrise")
    for app in (ours, theirs):
        assert app.sign_on().status_code == 201
    return Both(nagra, sunrise, ours, theirs, *platforms)


def discover(both: Both) -> None:
    """Sunrise sees its own services, whatever it sends beside its name."""
    answers = [
        both.sunrise.discover(),
        both.sunrise.discover(tenantId="nagra"),
        both.sunrise.discover(authorization=f"Bearer {both.theirs.tokens['access_token']}"),
        both.sunrise.client.get(
            "/ags/servicediscovery?tenant=nagra&nv-tenant-id=nagra", headers={"nv-tenant-id": "sunrise"}
        ),
    ]
    for answer in answers:
        assert [one["authServiceName"] for one in answer.json()["availableServices"]] == [SERVICE]


def get_session_token(both: Both) -> None:
    """Sunrise's key proves nothing for nagra, in whatever way it is presented."""
    sunrise = both.sunrise
    before = SessionToken.objects.for_tenant("nagra").count()
    forged = HeadEnd("nagra", both.nagra.kid, sunrise.secret)
    borrowed = HeadEnd("nagra", sunrise.kid, sunrise.secret)
    for answer in (
        sunrise.present(sunrise.token(), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra"), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra")),
        sunrise.present(sunrise.token(), x_auth_service_id=SECRET_SERVICE),
        forged.present(forged.token()),
        borrowed.present(borrowed.token()),
    ):
        assert answer.status_code in (401, 403)
    add_key(replace(both.nagra, tenant_id="sunrise", secret=sunrise.secret))  # the same kid
    snapshot.invalidate("sunrise")
    assert forged.present(forged.token()).status_code == 401
    assert SessionToken.objects.for_tenant("nagra").count() == before


def sign_on(both: Both) -> None:
    """Sunrise can neither redeem nagra's session token nor take over nagra's device."""
    token = both.ours.session_token()
    client_id = both.ours.tokens["client_id"]
    before = Device.objects.for_tenant("nagra").values().get()
    assert both.theirs.redeem(token).status_code == 401
    assert both.theirs.redeem(token, clientId=client_id).status_code == 401
    assert both.theirs.sign_on(clientId=client_id).json()["code"] == 20003
    assert both.ours.redeem(both.theirs.session_token()).status_code == 401
    assert Device.objects.for_tenant("nagra").values().get() == before
    assert both.ours.redeem(token, clientId=client_id).status_code == 201
    assert not SecurityEvent.unscoped.exists()


def sign_on_directly(both: Both) -> None:
    """Sunrise can neither sign on at nagra's service nor take over nagra's device."""
    before = Device.objects.for_tenant("nagra").values().get()
    client_id = both.ours.tokens["client_id"]
    body = {"parameters": [{"name": "Account", "value": "account-1"}], "deviceInformation": {}}
    elsewhere = both.theirs.call("/ags/signOn", body, x_auth_service_id=TRIAL)
    assert (elsewhere.status_code, elsewhere.json()["reason"]) == (403, "service_not_available")
    add_trial("sunrise")
    assert both.theirs.prove("account-1", clientId=client_id).json()["code"] == 20003
    assert both.theirs.prove("account-1").status_code == 201
    assert Device.objects.for_tenant("nagra").values().get() == before


def choose(both: Both) -> None:
    """Sunrise cannot make nagra's choice, and the one that it makes is of its own."""
    add_trial("sunrise")
    ours, theirs = both.ours.choices(), both.theirs.choices()
    for token in ours:
        assert both.theirs.choose(token).status_code == 401
        assert both.ours.choose(token, x_auth_service_id=SERVICE).status_code == 403
    assert both.ours.choose(theirs[0]).status_code == 401
    client_id = Device.objects.for_tenant("nagra").get().client_id
    remembered = both.theirs.choices(clientId=client_id)
    assert both.theirs.choose(remembered[0]).json()["code"] == 20003
    assert both.theirs.choose(theirs[0]).status_code == 201
    assert both.ours.choose(ours[0]).status_code == 201
    assert not SecurityEvent.unscoped.exists()


def refresh(both: Both) -> None:
    """Neither nagra's refresh token at sunrise nor sunrise's at nagra."""
    token, their_token = both.ours.tokens["refresh_token"], both.theirs.tokens["refresh_token"]
    assert both.theirs.refresh(token).status_code == 401
    assert both.theirs.refresh(token, nv_tenant_id=None, tenantId="sunrise").status_code == 401
    assert both.theirs.refresh(token, tenantId="nagra").status_code == 400
    assert both.ours.refresh(their_token).status_code == 401
    assert both.ours.refresh(token).status_code == 200
    assert both.theirs.refresh(their_token).status_code == 200


def sign_out(both: Both) -> None:
    """Nobody of sunrise signs a device of nagra out."""
    token = both.ours.tokens["access_token"]
    assert both.theirs.sign_out(token).status_code == 401
    assert both.ours.sign_out(both.theirs.tokens["access_token"]).status_code == 401
    assert both.ours.refresh().status_code == both.theirs.refresh().status_code == 200
    assert both.ours.sign_out(token).status_code == 200


def introspect(both: Both) -> None:
    """To sunrise's platform, a token of nagra is one that never was."""
    unknown = both.their_platform.introspect("unknown").content
    for token in (both.ours.tokens["access_token"], both.ours.tokens["refresh_token"]):
        assert both.their_platform.introspect(token, hint="refresh_token").content == unknown
        assert both.our_platform.sees(token)
    renamed = replace(both.their_platform, client_id=both.our_platform.client_id)
    moved = replace(both.their_platform, client_id=both.their_platform.client_id.replace("sunrise", "nagra"))
    for one in (renamed, moved):
        assert one.introspect(both.ours.tokens["access_token"]).status_code == 401


def revoke(both: Both) -> None:
    """Sunrise's platform is told that it is done, and nothing is."""
    for token in (both.ours.tokens["access_token"], both.ours.tokens["refresh_token"]):
        assert both.their_platform.revoke(token).status_code == 200
        assert both.our_platform.sees(token)
    assert both.ours.refresh().status_code == 200


def key_set(both: Both) -> None:
    """Each has keys of its own, and a token of nagra verifies with none of sunrise's."""

    def kids(tenant: str) -> set[str]:
        answer = both.nagra.client.get(f"/.well-known/jwks.json?tenant={tenant}")
        return {key["kid"] for key in answer.json()["keys"]}

    assert kids("nagra")
    assert not kids("nagra") & kids("sunrise")


def metrics(both: Both) -> None:
    """They are for nobody who comes in where operators do."""
    assert both.theirs.client.get("/metrics", headers={"nv-tenant-id": "nagra"}).status_code == 404


def nothing_of_a_tenant(path: str) -> Callable[[Both], None]:
    """The answer is the same to everybody, and holds nothing of an operator."""

    def check(both: Both) -> None:
        answers = [
            both.nagra.client.get(path, headers=headers)
            for headers in ({}, {"nv-tenant-id": "nagra"}, {"nv-tenant-id": "sunrise"})
        ]
        assert len({answer.content for answer in answers}) == 1
        for secret in ("sunrise-key-1", SECRET_SERVICE, "account-1"):
            assert secret not in answers[0].content.decode()

    return check


CANNOT: dict[str, Callable[[Both], None]] = {
    "ags/servicediscovery": discover,
    "ags/getSessionToken": get_session_token,
    "ags/signOnWithSessionToken": sign_on,
    "ags/signOn": sign_on_directly,
    "ags/subsequentSignOn": choose,
    "ags/signOut": sign_out,
    "ias/v3/token/actions/refresh": refresh,
    "oauth/introspect": introspect,
    "oauth/revoke": revoke,
    ".well-known/jwks.json": key_set,
    "healthz": nothing_of_a_tenant("/healthz"),
    "readyz": nothing_of_a_tenant("/readyz"),
    "metrics": metrics,
    "openapi.json": nothing_of_a_tenant("/openapi.json"),
}

PAGES = {"docs/", "docs", "admin/", "admin"}
"""For people; of those of staff, tests/tenants and tests/sessions ask the same."""


def addresses(patterns: list[Any]) -> list[str]:
    return [str(url.pattern) for url in patterns if str(url.pattern) not in PAGES]


@pytest.mark.parametrize("address", addresses(urlpatterns))
def test_the_other_operator_cannot(both: Both, address: str) -> None:
    assert address in CANNOT, f"say in CANNOT what the other operator cannot do at {address}"
    accounts = list(Account.objects.for_tenant("nagra").values())
    CANNOT[address](both)
    assert list(Account.objects.for_tenant("nagra").values()) == accounts


def test_no_entry_is_left_of_an_address_that_is_gone() -> None:
    assert set(CANNOT) == set(addresses(urlpatterns))
    assert all(isinstance(url, URLPattern) for url in urlpatterns if str(url.pattern) not in PAGES), (
        "addresses that are included from elsewhere would not be seen here"
    )
