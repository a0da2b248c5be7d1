"""Introspection (RFC 7662) and revocation (RFC 7009), as the standard's own clients meet them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Device
from tenants.models import ResourceServer, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.api.test_refusals import ID, TOO_LARGE, UNAVAILABLE, database_away, refusal, whole
from tests.conftest import ClientApp, HeadEnd, Platform, platform
from tests.sessions.test_redeem import NOT_ACCEPTED, verbs
from tests.sessions.test_refresh import age_sign_on, claims, sign_refresh_claims

DOORS = ("/oauth/introspect", "/oauth/revoke")


def standard(status: int, code: int, reason: str, message: str, error: str, **headers: str) -> dict[str, Any]:
    """A refusal with the members of RFC 6749, section 5.2, which allows these characters."""
    assert re.fullmatch(r"[ !#-\[\]-~]+", message)
    expected = refusal(status, code, reason, message, **headers)
    own = {"error": error, "error_description": message}
    told = {"code": code, "reason": reason, "message": message, **own, "correlationId": ID}
    raw = json.dumps(told, separators=(",", ":")).encode()
    return {**expected, **headers, "body": raw, "Content-Length": str(len(raw))}


MALFORMED = standard(
    400, 40012, "form_malformed", "The body must be a form with one token.", "invalid_request"
)
FORM_EXPECTED = standard(
    415, 41501, "form_expected", "The body must be an uncompressed form in UTF-8.", "invalid_request"
)
TWICE = standard(
    400,
    40013,
    "client_authentication_repeated",
    "The client must authenticate either by the Authorization header or by client_secret in the form.",
    "invalid_request",
)
NO_CLIENT = standard(
    401,
    40111,
    "client_not_authenticated",
    "The client ID and secret are not those of a resource server.",
    "invalid_client",
) | {"WWW-Authenticate": 'Basic realm="ags", charset="UTF-8"'}


@pytest.fixture
def server(nagra: HeadEnd) -> Platform:
    """A resource server of nagra."""
    return platform("nagra")


@pytest.fixture
def tokens(app: ClientApp) -> dict[str, Any]:
    """The tokens of a sign-on."""
    app.sign_on("Kühn 7")
    return app.tokens


# What is told


def test_an_active_access_token_is_told_of_in_full(server: Platform, tokens: dict[str, Any]) -> None:
    answer = server.introspect(tokens["access_token"])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    said = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert answer.json() == said | {
        "active": True,
        "token_type": "bearer",
        "client_id": tokens["client_id"],
        "sub": "Kühn 7",
    }
    assert all(type(answer.json()[name]) is int for name in ("iat", "exp"))


def test_an_active_refresh_token_is_told_of_as_what_it_is(server: Platform, tokens: dict[str, Any]) -> None:
    said = jwt.decode(tokens["refresh_token"], options={"verify_signature": False})
    assert server.introspect(tokens["refresh_token"], hint="refresh_token").json() == said | {
        "active": True,
        "token_type": "refresh_token",
        "client_id": tokens["client_id"],
        "sub": "Kühn 7",
    }


def test_nothing_but_that_it_is_inactive_is_told_of_any_other(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    app.refresh()
    used = tokens["refresh_token"]
    current = app.tokens["access_token"]
    assert server.introspect(used, hint="refresh_token").json() == {"active": False}
    app.sign_out()
    for token in (current, app.tokens["refresh_token"], "unknown", "a.b.c", " ", "\u00e4", "x" * 9000):
        answer = server.introspect(token, hint="refresh_token")
        assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_a_refresh_token_is_inactive_once_it_has_expired(server: Platform, tokens: dict[str, Any]) -> None:
    age_sign_on(172_790)
    assert server.sees(tokens["refresh_token"])
    age_sign_on(20)
    assert server.introspect(tokens["refresh_token"], hint="refresh_token").json() == {"active": False}


@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "REFRESH_TOKEN", "something", ""])
def test_a_refresh_token_is_active_only_with_its_hint(
    server: Platform, tokens: dict[str, Any], hint: str | None
) -> None:
    assert server.introspect(tokens["access_token"], hint=hint).json()["active"] is True
    told = server.introspect(tokens["refresh_token"], hint=hint).json()
    assert told == {"active": False} if hint != "refresh_token" else told["active"]


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "something"])
def test_a_hint_does_not_change_what_is_revoked(server: Platform, tokens: dict[str, Any], hint: str) -> None:
    form = {"token": tokens["refresh_token"], "token_type_hint": hint}
    assert server.post("/oauth/revoke", form).status_code == 200
    assert not server.sees(tokens["access_token"])


@pytest.mark.parametrize(("age", "active"), [(-3600, True), (1, False)])
def test_a_refresh_token_newer_than_the_database_is_active_until_its_own_end(
    server: Platform, tokens: dict[str, Any], age: int, active: bool
) -> None:
    said = claims(tokens["refresh_token"])
    newer = {"jti": said["jti"].replace(".0", ".3"), "exp": int(time.time()) - age}
    age_sign_on(180_000)

    def is_active(said: dict[str, Any]) -> Any:
        form = {"token": sign_refresh_claims(said), "token_type_hint": "refresh_token"}
        return server.post("/oauth/introspect", form).json()["active"]

    assert is_active(said | newer) is active
    assert is_active(said | {"exp": newer["exp"]}) is False, "the row's own has expired"


def test_introspection_is_one_statement(server: Platform, tokens: dict[str, Any], stays_stale: None) -> None:
    server.introspect("x")
    for token, expected in ((tokens["access_token"], 1), (tokens["refresh_token"], 1), ("garbage", 0)):
        with CaptureQueriesContext(connection) as captured:
            assert server.introspect(token, hint="refresh_token").status_code == 200
        assert verbs(captured) == ["SELECT"] * expected


def test_revocation_is_one_statement(server: Platform, tokens: dict[str, Any], stays_stale: None) -> None:
    server.introspect("x")
    for token, expected in (
        (tokens["access_token"], ["INSERT"]),
        (tokens["refresh_token"], ["UPDATE"]),
        ("garbage", []),
    ):
        with CaptureQueriesContext(connection) as captured:
            assert server.revoke(token).status_code == 200
        assert verbs(captured) == expected


# What is revoked


def test_a_revoked_access_token_is_worthless_and_its_sign_on_goes_on(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    for _ in range(2):
        answer = server.revoke(tokens["access_token"])
        assert (answer.status_code, answer.json()) == (200, {})
    assert server.introspect(tokens["access_token"]).json() == {"active": False}
    assert whole(app.sign_out(tokens["access_token"], x_correlation_id=ID)) == NOT_ACCEPTED
    assert app.refresh().status_code == 200
    assert server.sees(app.tokens["access_token"])


def test_a_revoked_refresh_token_ends_its_sign_on(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    for _ in range(2):
        answer = server.revoke(tokens["refresh_token"])
        assert (answer.status_code, answer.json()) == (200, {})
    for token in ("access_token", "refresh_token"):
        assert server.introspect(tokens[token], hint="refresh_token").json() == {"active": False}
    assert whole(app.refresh(x_correlation_id=ID)) == NOT_ACCEPTED
    assert Device.objects.for_tenant("nagra").get().end_reason == "revoked"


@pytest.mark.parametrize("token", ["unknown", "a.b.c", "x" * 9000, "\u00e4"])
def test_there_is_nothing_to_revoke_about_an_unknown_token(server: Platform, token: str) -> None:
    answer = server.revoke(token)
    assert (answer.status_code, answer.json()) == (200, {})


# Who asks


@pytest.mark.parametrize("door", DOORS)
def test_the_credentials_may_be_in_the_header_or_in_the_form(
    server: Platform, tokens: dict[str, Any], door: str
) -> None:
    in_form = {"client_id": server.client_id, "client_secret": server.secret}
    token = {"token": tokens["access_token"]}
    encoded = "".join(f"%{byte:02X}" for byte in server.secret.encode())
    as_the_standard_says = base64.b64encode(f"{server.client_id}:{encoded}".encode()).decode()
    for form, header in (
        (token, server.basic),
        (token, server.basic.replace("Basic", "bAsIc")),
        (token, f"Basic {as_the_standard_says}"),
        (token | in_form, None),
        (token | {"client_id": server.client_id}, server.basic),
        (token | {"client_id": server.client_id, "client_secret": ""}, server.basic),
    ):
        assert server.post(door, form, authorization=header).status_code == 200


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def wrong_credentials(server: Platform) -> dict[str, tuple[str | None, dict[str, str]]]:
    """The header and what else is in the form."""
    good = {"client_id": server.client_id, "client_secret": server.secret}
    return {
        "none": (None, {}),
        "an empty header": ("", {}),
        "another secret": (basic(f"{server.client_id}:{server.secret}x"), {}),
        "an empty secret": (basic(f"{server.client_id}:"), {}),
        "no secret": (basic(server.client_id), {}),
        "an unknown client": (basic(f"nagra~unknown:{server.secret}"), {}),
        "a client of an unknown tenant": (basic(f"nobody~x:{server.secret}"), {}),
        "a client without a tenant": (basic(f"x:{server.secret}"), {}),
        "no client": (basic(f":{server.secret}"), {}),
        "a NUL": (basic(f"nagra~\0:{server.secret}"), {}),
        "another spelling": (basic(f"{server.client_id.upper()}:{server.secret}"), {}),
        "no base64": ("Basic !", {}),
        "half of base64": ("Basic YQ=", {}),
        "base64 of no UTF-8": (basic(b"\xff:\xff"), {}),
        "a bad percent-encoding": (basic(f"{server.client_id}:%ff%zz"), {}),
        "the scheme alone": ("Basic", {}),
        "another scheme": (server.basic.replace("Basic", "Bearer"), {}),
        "header, and another id in the form": (server.basic, {"client_id": f"{server.client_id}x"}),
        "another scheme, and an id in the form": ("Bearer x", {"client_id": server.client_id}),
        "another secret in the form": (None, good | {"client_secret": "x"}),
        "the id alone in the form": (None, {"client_id": server.client_id}),
        "the secret alone in the form": (None, {"client_secret": server.secret}),
    }


@pytest.mark.parametrize("door", DOORS)
def test_whoever_does_not_prove_who_he_is_is_told_one_thing(
    server: Platform, tokens: dict[str, Any], door: str
) -> None:
    for name, (header, members) in wrong_credentials(server).items():
        for token in (tokens["access_token"], "unknown"):
            answer = server.post(door, {"token": token, **members}, authorization=header, x_correlation_id=ID)
            assert whole(answer) == NO_CLIENT, name
    assert server.sees(tokens["access_token"]), "nothing was revoked"


@pytest.mark.parametrize("door", DOORS)
def test_two_methods_at_once_are_refused_whether_they_are_good_or_not(server: Platform, door: str) -> None:
    good = {"client_id": server.client_id, "client_secret": server.secret}
    wrong = basic(f"{server.client_id}:wrong")
    for header in (server.basic, wrong, basic("nobody~x:y"), "Basic !", "Bearer x"):
        for members in (good, good | {"client_secret": "wrong"}, {"client_secret": "x"}):
            answer = server.post(door, {"token": "x", **members}, authorization=header, x_correlation_id=ID)
            assert whole(answer) == TWICE


def test_a_wrong_client_costs_no_statement(server: Platform, stays_stale: None) -> None:
    server.introspect("x")
    with CaptureQueriesContext(connection) as captured:
        for header, members in wrong_credentials(server).values():
            server.post("/oauth/introspect", {"token": "x", **members}, authorization=header)
    assert list(captured) == []


def test_a_resource_server_that_is_disabled_or_whose_tenant_is_asks_in_vain(
    server: Platform, tokens: dict[str, Any]
) -> None:
    row = ResourceServer.objects.for_tenant("nagra").get()
    for row_of, other in ((row, row.tenant), (row.tenant, row)):
        assert server.sees(tokens["access_token"])
        row_of.enabled = False
        row_of.save()
        snapshot.invalidate("nagra")
        for door in DOORS:
            answer = server.post(door, {"token": tokens["access_token"]}, x_correlation_id=ID)
            assert whole(answer) == NO_CLIENT
        row_of.enabled = other.enabled = True
        row_of.save()
        snapshot.invalidate("nagra")
    assert server.sees(tokens["access_token"])


def test_of_its_secret_a_hash_is_kept(server: Platform) -> None:
    row = ResourceServer.unscoped.values().get()
    assert bytes(row.pop("secret_hash")) == hashlib.sha256(server.secret.encode()).digest()
    assert server.secret not in repr(row)
    assert len(server.secret) >= 43, "256 bits"


def test_a_client_learns_nothing_of_another_tenant(
    server: Platform, tokens: dict[str, Any], sunrise: HeadEnd
) -> None:
    theirs = platform("sunrise")
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert whole(theirs.introspect(token, hint="refresh_token", x_correlation_id=ID)) == whole(
            theirs.introspect("unknown", x_correlation_id=ID)
        )
        assert whole(theirs.revoke(token, x_correlation_id=ID)) == whole(
            theirs.revoke("unknown", x_correlation_id=ID)
        )
        for name in ("nv_tenant_id", "tenantId"):
            assert not theirs.introspect(token, hint="refresh_token", **{name: "nagra"}).json()["active"]
        assert server.sees(token)


# What is not a form with one token


FORMS: dict[str, tuple[bytes | str, dict[str, str], dict[str, Any]]] = {
    "nothing": ("", {}, MALFORMED),
    "nothing, of no type": ("", {"content_type": ""}, MALFORMED),
    "nothing, of another type": ("", {"content_type": "application/json"}, MALFORMED),
    "empty": ("&", {}, MALFORMED),
    "no token": ("a=b", {}, MALFORMED),
    "an empty token": ("token=", {}, MALFORMED),
    "a token without a value": ("token", {}, MALFORMED),
    "a token twice": ("token=a&token=b", {}, MALFORMED),
    "the same token twice": ("token=a&token=a", {}, MALFORMED),
    "another member twice": ("token=a&b=c&b=c", {}, MALFORMED),
    "a NUL": ("token=a%00", {}, MALFORMED),
    "a NUL in a name": ("token=a&b%00=c", {}, MALFORMED),
    "a raw NUL": (b"token=a\0", {}, MALFORMED),
    "percent-encoded bytes that are no UTF-8": ("token=%ff", {}, MALFORMED),
    "half a surrogate pair": ("token=%ED%A0%80", {}, MALFORMED),
    "bytes beyond ASCII": ("token=ä".encode(), {}, MALFORMED),
    "JSON": ('{"token": "a"}', {}, MALFORMED),
    "21 members": ("token=a" + "".join(f"&n{number}=" for number in range(20)), {}, MALFORMED),
    "JSON that says so": ('{"token": "a"}', {"content_type": "application/json"}, FORM_EXPECTED),
    "a multipart form": ("token=a", {"content_type": "multipart/form-data; boundary=x"}, FORM_EXPECTED),
    "no type": ("token=a", {"content_type": ""}, FORM_EXPECTED),
    "another charset": (
        "token=a",
        {"content_type": "application/x-www-form-urlencoded; charset=utf-16"},
        FORM_EXPECTED,
    ),
    "compressed": ("token=a", {"content_encoding": "gzip"}, FORM_EXPECTED),
    "too large": ("token=" + "a" * 70_000, {}, TOO_LARGE),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("form", "headers", "expected"), FORMS.values(), ids=FORMS)
def test_a_form_that_is_none(
    server: Platform, door: str, form: bytes | str, headers: dict[str, str], expected: dict[str, Any]
) -> None:
    assert whole(server.post(door, form, x_correlation_id=ID, **headers)) == expected


@pytest.mark.parametrize(
    "form", ["token=%zz", "token=%", "token=a&scope=x", "token=a+b", "token_type_hint=&token=%C3%A4"]
)
def test_a_form_is_read_as_browsers_write_it(server: Platform, form: str) -> None:
    kind = "application/x-www-form-urlencoded; charset=UTF-8"
    answer = server.post("/oauth/introspect", form, content_type=kind)
    assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_a_form_of_20_members_is_read(server: Platform, tokens: dict[str, Any]) -> None:
    form = {f"n{number}": "" for number in range(19)} | {"token": tokens["access_token"]}
    assert server.post("/oauth/introspect", form).json()["active"] is True


@pytest.mark.parametrize("door", DOORS)
def test_a_token_in_the_address_is_not_read(server: Platform, tokens: dict[str, Any], door: str) -> None:
    answer = server.post(f"{door}?token={tokens['access_token']}", "a=b", x_correlation_id=ID)
    assert whole(answer) == MALFORMED
    assert server.client.get(f"{door}?token=x").status_code == 405


@pytest.mark.parametrize("door", DOORS)
def test_a_database_that_is_away_is_a_503_and_never_an_inactive_token(
    server: Platform, tokens: dict[str, Any], door: str, stays_stale: None
) -> None:
    server.introspect("x")
    with database_away():
        answer = server.post(door, {"token": tokens["access_token"]}, x_correlation_id=ID)
        assert whole(answer) == UNAVAILABLE
    assert server.sees(tokens["access_token"])


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("header", ["Basic \u00e9", "Basic ===", "Basic /w==", "Basic", "Bearer x"])
def test_credentials_that_cannot_be_read_are_none(server: Platform, door: str, header: str) -> None:
    assert whole(server.post(door, {"token": "x"}, x_correlation_id=ID, authorization=header)) == NO_CLIENT


def test_whose_token_it_is_the_database_says_and_not_a_platform_that_shares_the_secret(
    nagra: HeadEnd, app: ClientApp
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get().delete()
    secret = bytes(range(200, 232))
    key = SigningKey.generate(tenant, state="active", secret=secret)
    key.save()
    resource_server = platform("nagra")
    app.sign_on()
    said = jwt.decode(app.tokens["access_token"], options={"verify_signature": False})
    forged = {**said, "accountId": "victim", "deviceId": "other", "scope": "admin", "active": False}
    answer = resource_server.introspect(jwt.encode(forged, secret, "HS256", {"kid": key.kid})).json()
    assert answer["active"] is True
    assert {answer[name] for name in ("accountId", "userId", "sub")} == {"account-1"}
    assert answer["deviceId"] == answer["client_id"] == app.tokens["client_id"]
    assert "scope" not in answer
    Device.objects.for_tenant("nagra").update(fixed_expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    forever = jwt.encode({**said, "exp": 253402214400}, secret, "HS256", {"kid": key.kid})
    assert not resource_server.sees(forever), "no token outlives its sign-on"
