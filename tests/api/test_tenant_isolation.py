"""Tenant isolation: one check for each URL of the API; a missing one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.urls import URLPattern

from ags.explanations.links import build_path
from ags.sessions.models import Account, Device, SecurityEvent, SessionToken
from ags.urls import urlpatterns
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd, Platform
from tests.support.explanation_pages import add_refusal, create_explanation_link
from tests.support.operators import add_key, add_trial_service, create_platform

SECRET_SERVICE = "Only nagra has this"


@dataclass
class Operators:
    """Two operators, each with tokens and a resource server. Sunrise attacks nagra."""

    nagra: HeadEnd
    sunrise: HeadEnd
    nagra_app: ClientApp
    sunrise_app: ClientApp
    nagra_platform: Platform
    sunrise_platform: Platform


@pytest.fixture
def both_operators(nagra: HeadEnd, sunrise: HeadEnd) -> Operators:
    """Both have signed on, with the same account ID."""
    Service(
        tenant_id="nagra",
        name=SECRET_SERVICE,
        strategy="operator_token",
        display_name=SECRET_SERVICE,
        enabled=True,
    ).save()
    add_trial_service("nagra")
    nagra_app, sunrise_app = ClientApp(nagra), ClientApp(sunrise)
    platforms = create_platform("nagra"), create_platform("sunrise")
    for app in (nagra_app, sunrise_app):
        assert app.sign_on().status_code == 201
    return Operators(nagra, sunrise, nagra_app, sunrise_app, *platforms)


def discover(both_operators: Operators) -> None:
    """Sunrise sees only its own services, whatever other input it sends."""
    responses = [
        both_operators.sunrise.discover(),
        both_operators.sunrise.discover(tenantId="nagra"),
        both_operators.sunrise.discover(
            authorization=f"Bearer {both_operators.sunrise_app.tokens['access_token']}"
        ),
        both_operators.sunrise.client.get(
            "/ags/servicediscovery?tenant=nagra&nv-tenant-id=nagra", headers={"nv-tenant-id": "sunrise"}
        ),
    ]
    for response in responses:
        assert [service["authServiceName"] for service in response.json()["availableServices"]] == [SERVICE]


def get_session_token(both_operators: Operators) -> None:
    """Sunrise's key does not authenticate accounts of nagra."""
    sunrise = both_operators.sunrise
    before = SessionToken.objects.for_tenant("nagra").count()
    forged = HeadEnd("nagra", both_operators.nagra.kid, sunrise.secret)
    borrowed = HeadEnd("nagra", sunrise.kid, sunrise.secret)
    for response in (
        sunrise.present(sunrise.token(), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra"), nv_tenant_id="nagra"),
        sunrise.present(sunrise.token(OpfTenantId="nagra")),
        sunrise.present(sunrise.token(), x_auth_service_id=SECRET_SERVICE),
        forged.present(forged.token()),
        borrowed.present(borrowed.token()),
    ):
        assert response.status_code in (401, 403)
    add_key(replace(both_operators.nagra, tenant_id="sunrise", secret=sunrise.secret))  # the same kid
    snapshot.invalidate("sunrise")
    assert forged.present(forged.token()).status_code == 401
    assert SessionToken.objects.for_tenant("nagra").count() == before


def sign_on(both_operators: Operators) -> None:
    """Sunrise can neither redeem a session token of nagra nor take over its device."""
    token = both_operators.nagra_app.session_token()
    client_id = both_operators.nagra_app.tokens["client_id"]
    before = Device.objects.for_tenant("nagra").values().get()
    assert both_operators.sunrise_app.redeem(token).status_code == 401
    assert both_operators.sunrise_app.redeem(token, clientId=client_id).status_code == 401
    assert both_operators.sunrise_app.sign_on(clientId=client_id).json()["code"] == 20003
    assert both_operators.nagra_app.redeem(both_operators.sunrise_app.session_token()).status_code == 401
    assert Device.objects.for_tenant("nagra").values().get() == before
    assert both_operators.nagra_app.redeem(token, clientId=client_id).status_code == 201
    assert not SecurityEvent.unscoped.exists()


def sign_on_directly(both_operators: Operators) -> None:
    """Sunrise can neither sign on at a service of nagra nor take over its device."""
    before = Device.objects.for_tenant("nagra").values().get()
    client_id = both_operators.nagra_app.tokens["client_id"]
    body = {"parameters": [{"name": "Account", "value": "account-1"}], "deviceInformation": {}}
    elsewhere = both_operators.sunrise_app.call("/ags/signOn", body, x_auth_service_id=TRIAL)
    assert (elsewhere.status_code, elsewhere.json()["reason"]) == (403, "service_not_available")
    add_trial_service("sunrise")
    assert (
        both_operators.sunrise_app.sign_on_directly("account-1", clientId=client_id).json()["code"] == 20003
    )
    assert both_operators.sunrise_app.sign_on_directly("account-1").status_code == 201
    assert Device.objects.for_tenant("nagra").values().get() == before


def choose(both_operators: Operators) -> None:
    """Sunrise cannot redeem a choice of nagra."""
    add_trial_service("sunrise")
    nagra_tokens, sunrise_tokens = (
        both_operators.nagra_app.request_choices(),
        both_operators.sunrise_app.request_choices(),
    )
    for token in nagra_tokens:
        assert both_operators.sunrise_app.choose_account(token).status_code == 401
        assert both_operators.nagra_app.choose_account(token, x_auth_service_id=SERVICE).status_code == 403
    assert both_operators.nagra_app.choose_account(sunrise_tokens[0]).status_code == 401
    client_id = Device.objects.for_tenant("nagra").get().client_id
    remembered = both_operators.sunrise_app.request_choices(clientId=client_id)
    assert both_operators.sunrise_app.choose_account(remembered[0]).json()["code"] == 20003
    assert both_operators.sunrise_app.choose_account(sunrise_tokens[0]).status_code == 201
    assert both_operators.nagra_app.choose_account(nagra_tokens[0]).status_code == 201
    assert not SecurityEvent.unscoped.exists()


def refresh(both_operators: Operators) -> None:
    """A refresh token is valid only for its own tenant."""
    token, sunrise_token = (
        both_operators.nagra_app.tokens["refresh_token"],
        both_operators.sunrise_app.tokens["refresh_token"],
    )
    assert both_operators.sunrise_app.refresh(token).status_code == 401
    assert both_operators.sunrise_app.refresh(token, nv_tenant_id=None, tenantId="sunrise").status_code == 401
    assert both_operators.sunrise_app.refresh(token, tenantId="nagra").status_code == 400
    assert both_operators.nagra_app.refresh(sunrise_token).status_code == 401
    assert both_operators.nagra_app.refresh(token).status_code == 200
    assert both_operators.sunrise_app.refresh(sunrise_token).status_code == 200


def sign_out(both_operators: Operators) -> None:
    """Sunrise cannot sign out a device of nagra."""
    token = both_operators.nagra_app.tokens["access_token"]
    assert both_operators.sunrise_app.sign_out(token).status_code == 401
    assert (
        both_operators.nagra_app.sign_out(both_operators.sunrise_app.tokens["access_token"]).status_code
        == 401
    )
    assert (
        both_operators.nagra_app.refresh().status_code
        == both_operators.sunrise_app.refresh().status_code
        == 200
    )
    assert both_operators.nagra_app.sign_out(token).status_code == 200


def introspect(both_operators: Operators) -> None:
    """For a resource server of sunrise, a token of nagra looks unknown."""
    unknown = both_operators.sunrise_platform.introspect("unknown").content
    for token in (
        both_operators.nagra_app.tokens["access_token"],
        both_operators.nagra_app.tokens["refresh_token"],
    ):
        assert both_operators.sunrise_platform.introspect(token, hint="refresh_token").content == unknown
        assert both_operators.nagra_platform.is_active(token)
    renamed = replace(both_operators.sunrise_platform, client_id=both_operators.nagra_platform.client_id)
    moved = replace(
        both_operators.sunrise_platform,
        client_id=both_operators.sunrise_platform.client_id.replace("sunrise", "nagra"),
    )
    for impostor in (renamed, moved):
        assert impostor.introspect(both_operators.nagra_app.tokens["access_token"]).status_code == 401


def revoke(both_operators: Operators) -> None:
    """A resource server of sunrise gets 200 (RFC 7009), but revokes nothing of nagra."""
    for token in (
        both_operators.nagra_app.tokens["access_token"],
        both_operators.nagra_app.tokens["refresh_token"],
    ):
        assert both_operators.sunrise_platform.revoke(token).status_code == 200
        assert both_operators.nagra_platform.is_active(token)
    assert both_operators.nagra_app.refresh().status_code == 200


def key_set(both_operators: Operators) -> None:
    """The JWK sets are disjoint."""

    def kids(tenant: str) -> set[str]:
        response = both_operators.nagra.client.get(f"/.well-known/jwks.json?tenant={tenant}")
        return {key["kid"] for key in response.json()["keys"]}

    assert kids("nagra")
    assert not kids("nagra") & kids("sunrise")


def explanation(both_operators: Operators) -> None:
    """A link of sunrise explains no request of nagra, even if its row names one."""
    client = both_operators.sunrise.client
    events = {tenant_id: f"event:{add_refusal(tenant_id).pk}" for tenant_id in ("nagra", "sunrise")}
    own = create_explanation_link("sunrise", events["sunrise"])
    assert client.get(build_path(own)).status_code == 200
    tokens = SessionToken.objects.for_tenant("nagra")
    for event in (events["nagra"], f"session_token:{tokens.get().pk}:redeemed"):
        foreign = create_explanation_link("sunrise", event)
        assert client.get(build_path(foreign), headers={"nv-tenant-id": "nagra"}).status_code == 404
        foreign.tenant_id = "nagra"
        foreign.save()
        assert client.get(build_path(foreign)).status_code == 200


def metrics(both_operators: Operators) -> None:
    """Metrics are not available on the port of the API."""
    assert (
        both_operators.sunrise_app.client.get("/metrics", headers={"nv-tenant-id": "nagra"}).status_code
        == 404
    )


def is_tenant_independent(path: str) -> Callable[[Operators], None]:
    """The response is the same for all tenants and contains nothing about a tenant."""

    def check(both_operators: Operators) -> None:
        responses = [
            both_operators.nagra.client.get(path, headers=headers)
            for headers in ({}, {"nv-tenant-id": "nagra"}, {"nv-tenant-id": "sunrise"})
        ]
        assert len({response.content for response in responses}) == 1
        for secret in ("sunrise-key-1", SECRET_SERVICE, "account-1"):
            assert secret not in responses[0].content.decode()

    return check


ISOLATION_CHECKS: dict[str, Callable[[Operators], None]] = {
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
    "explanations/<token>": explanation,
    "healthz": is_tenant_independent("/healthz"),
    "readyz": is_tenant_independent("/readyz"),
    "metrics": metrics,
    "openapi.json": is_tenant_independent("/openapi.json"),
}

PAGES = {"docs/", "docs", "admin/login/", "admin/", "admin"}
"""Staff pages; tests/tenants and tests/sessions check their isolation."""


def api_paths(patterns: list[Any]) -> list[str]:
    return [str(url.pattern) for url in patterns if str(url.pattern) not in PAGES]


@pytest.mark.parametrize("path", api_paths(urlpatterns))
def test_other_tenant_has_no_access(both_operators: Operators, path: str) -> None:
    assert path in ISOLATION_CHECKS, f"add a check for {path} to ISOLATION_CHECKS"
    accounts = list(Account.objects.for_tenant("nagra").values())
    ISOLATION_CHECKS[path](both_operators)
    assert list(Account.objects.for_tenant("nagra").values()) == accounts


def test_every_check_has_a_url() -> None:
    assert set(ISOLATION_CHECKS) == set(api_paths(urlpatterns))
    assert all(isinstance(url, URLPattern) for url in urlpatterns if str(url.pattern) not in PAGES), (
        "this test does not see included URLs"
    )
