"""The provider `oidc_id_token`: claims, and the two documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from providers.contract import FailureReason
from providers.oidc_id_token.strategy import OIDCIDToken
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.support.clients import HeadEnd
from tests.support.confused_tokens import CONFUSED, KEY_SET, RSA
from tests.support.oidc_id_token import WELL_KNOWN, discovery, get_failure, get_settings, make_claims, verify
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import ABSENT


@pytest.fixture(scope="module")
def steady() -> Iterator[HTTPSServer]:
    """A shared server for tests that do not change it."""
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


TRUSTS = {"trusted_clients": "remote\nother"}

# claims that differ from a valid token, settings, the parameter Nonce
ACCEPTED: Any = {
    "a valid token": ({}, {}, "n"),
    "our client in an array": ({"aud": ["television"]}, {}, "n"),
    "azp of our own": ({"azp": "television"}, {}, "n"),
    "azp of a client that is trusted": ({"azp": "remote"}, TRUSTS, "n"),
    "audiences that are trusted": ({"aud": ["television", "other"], "azp": "remote"}, TRUSTS, "n"),
    "no nonce, not compared": ({"nonce": ABSENT}, {"nonce": "off"}, None),
    "another nonce, not compared": ({}, {"nonce": "off"}, "other"),
    "no parameter, if_given": ({}, {"nonce": "if_given"}, None),
    "the parameter, if_given": ({}, {"nonce": "if_given"}, "n"),
    "a nonce with any characters": ({"nonce": "é&= \n"}, {"replay": "off"}, "é&= \n"),
    "issued within the skew": ({"iat": lambda now: now + 20}, {}, "n"),
    "issued long ago, no max_age": ({"iat": 1}, {"max_age": None}, "n"),
    "the maximum age": ({"iat": lambda now: now - 620}, {}, "n"),
    "expired within the skew": ({"exp": lambda now: now - 20}, {}, "n"),
    "an account in another claim": ({"sub": "x", "acct": "account-1"}, {"account_claim": "acct"}, "n"),
    "the tenant": ({"tenant": "nagra"}, {"tenant_claim": "tenant"}, "n"),
    "a required claim": ({"acr": "high"}, {"required_claims": "acr=high"}, "n"),
    "a hash of an access token": ({"at_hash": "x", "auth_time": 1, "amr": ["pwd"]}, {}, "n"),
}  # fmt: skip

REJECTED: Any = {
    "iss missing": ({"iss": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "iss"),
    "another issuer": ({"iss": "https://evil.example"}, {}, "n", FailureReason.ISSUER_MISMATCH, "iss"),
    "aud missing": ({"aud": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "aud"),
    "another client": ({"aud": "other"}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "a trusted client alone": ({"aud": "other"}, TRUSTS, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "another audience": (
        {"aud": ["television", "x"], "azp": "television"}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud",
    ),
    "aud with a number": ({"aud": ["television", 5]}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "several audiences without azp": (
        {"aud": ["television", "other"]}, TRUSTS, "n", FailureReason.CLAIM_MISSING, "azp",
    ),
    "azp of another client": ({"azp": "x"}, TRUSTS, "n", FailureReason.AUTHORIZED_PARTY_MISMATCH, "azp"),
    "azp a list": ({"azp": ["television"]}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "azp null": ({"azp": None}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "azp empty": ({"azp": ""}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "nonce missing": ({"nonce": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "nonce"),
    "nonce not given": ({}, {}, None, FailureReason.NONCE_MISMATCH, "nonce"),
    "neither": ({"nonce": ABSENT}, {}, None, FailureReason.NONCE_MISMATCH, "nonce"),
    "another nonce": ({}, {}, "N", FailureReason.NONCE_MISMATCH, "nonce"),
    "an empty nonce": ({}, {}, "", FailureReason.NONCE_MISMATCH, "nonce"),
    "a nonce in a list": ({"nonce": ["n"]}, {}, "n", FailureReason.NONCE_MISMATCH, "nonce"),
    "another nonce, if_given": ({}, {"nonce": "if_given"}, "x", FailureReason.NONCE_MISMATCH, "nonce"),
    "a parameter, but no nonce": (
        {"nonce": ABSENT}, {"nonce": "if_given"}, "n", FailureReason.CLAIM_MISSING, "nonce",
    ),
    "exp missing": ({"exp": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "exp"),
    "expired": ({"exp": lambda now: now - 60}, {}, "n", FailureReason.TOKEN_EXPIRED, "exp"),
    "iat missing": ({"iat": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "iat"),
    "iat a string": ({"iat": "1"}, {}, "n", FailureReason.CLAIM_INVALID, "iat"),
    "iat in the future": ({"iat": lambda now: now + 60}, {}, "n", FailureReason.TOKEN_NOT_YET_VALID, "iat"),
    "issued too long ago": ({"iat": lambda now: now - 640}, {}, "n", FailureReason.TOKEN_EXPIRED, "iat"),
    "exp in milliseconds": ({"exp": lambda now: now * 1000}, {}, "n", FailureReason.LIFETIME_TOO_LONG, "exp"),
    "a lifetime too long": ({}, {"max_lifetime": 60}, "n", FailureReason.LIFETIME_TOO_LONG, "exp"),
    "sub missing": ({"sub": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "sub"),
    "sub a negative number": ({"sub": -5}, {}, "n", FailureReason.CLAIM_INVALID, "sub"),
    "another tenant": ({"t": "sunrise"}, {"tenant_claim": "t"}, "n", FailureReason.TENANT_MISMATCH, "t"),
    "another value of a required claim": (
        {"acr": "low"}, {"required_claims": "acr=high"}, "n", FailureReason.CLAIM_MISMATCH, "acr",
    ),
    "neither jti nor nonce, one required": (
        {"nonce": ABSENT}, {"nonce": "off", "replay": "required"}, None, FailureReason.CLAIM_MISSING, "jti",
    ),
    "jti a number": ({"jti": 5}, {}, "n", FailureReason.CLAIM_INVALID, "jti"),
}  # fmt: skip


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "nonce"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(
    steady: HTTPSServer, changes: dict[str, Any], settings: dict[str, Any], nonce: str | None
) -> None:
    identity = verify(RSA.token(make_claims(steady, **changes)), get_settings(steady, **settings), nonce)
    assert (identity.account_id, identity.key_id) == ("account-1", None)


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "nonce", "reason", "claim"), REJECTED.values(), ids=REJECTED)
def test_rejects(
    steady: HTTPSServer,
    changes: dict[str, Any],
    settings: dict[str, Any],
    nonce: str | None,
    reason: FailureReason,
    claim: str,
) -> None:
    jws = RSA.token(make_claims(steady, **changes))
    assert get_failure(jws, get_settings(steady, **settings), nonce) == (reason, claim)


@pytest.mark.parametrize(("make", "reason"), CONFUSED.values(), ids=CONFUSED)
def test_confused_algorithms_and_keys_are_rejected(
    steady: HTTPSServer, make: Any, reason: FailureReason
) -> None:
    assert get_failure(make(make_claims(steady)), get_settings(steady))[0] is reason


OPERATOR_TOKEN = {"typ": "GetSessionTokenAuthN", "OpfTenantId": "nagra", "OpfAccountId": "account-1"}
LOGOUT = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "nonce": ABSENT}

# claims, header, settings, reason
OTHER_PURPOSE: Any = {
    "an access token": ({}, {"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "an access token in full": ({}, {"typ": "application/at+jwt"}, {}, FailureReason.MALFORMED),
    "an access token without at+jwt": (
        {"nonce": ABSENT, "scope": "openid"}, {}, {}, FailureReason.CLAIM_MISSING,
    ),
    "an access token for an API": (
        {"aud": "https://api.example"}, {}, {"nonce": "off"}, FailureReason.AUDIENCE_MISMATCH,
    ),
    "a logout token": (LOGOUT, {}, {"nonce": "off"}, FailureReason.TYPE_MISMATCH),
    "a logout token with logout+jwt": (LOGOUT, {"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "an OperatorAuthToken": ({**OPERATOR_TOKEN, "aud": "ags"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "an access token of AGS": ({"typ": "DevAuthN", "aud": "nagra"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "an algorithm that is not allowed": ({}, {}, {"algorithms": ["ES256"]}, FailureReason.KEY_UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "header", "settings", "reason"), OTHER_PURPOSE.values(), ids=OTHER_PURPOSE
)
def test_tokens_for_another_purpose_are_rejected(
    steady: HTTPSServer,
    changes: dict[str, Any],
    header: dict[str, Any],
    settings: dict[str, Any],
    reason: FailureReason,
) -> None:
    jws = RSA.token(make_claims(steady, **changes), **header)
    assert get_failure(jws, get_settings(steady, **settings))[0] is reason


def test_the_jti_or_else_the_nonce_prevents_replay(steady: HTTPSServer) -> None:
    settings = get_settings(steady, replay="required")
    valid = make_claims(steady, jti="j")
    identity = verify(RSA.token(valid), settings)
    assert (identity.jti, identity.replayable_until) == ("j", valid["exp"] + 300)
    first = verify(RSA.token(make_claims(steady)), settings).jti
    again = verify(RSA.token(make_claims(steady, sub="other")), settings).jti
    other = verify(RSA.token(make_claims(steady, nonce="other")), settings, "other").jti
    assert first
    assert first == again != other
    assert verify(RSA.token(valid), get_settings(steady, replay="off")).jti is None
    free = get_settings(steady, nonce="off")
    assert verify(RSA.token(make_claims(steady, nonce=ABSENT)), free, None).jti is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": "http://login.example"}, "issuer"),
        ({"issuer": "https://login.example?a=b"}, "issuer"),
        ({"issuer": "https://" + "a" * 443}, "issuer"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": "a" * 256}, "client_id"),
        ({"trusted_clients": "a" * 2049}, "trusted_clients"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"nonce": "sometimes"}, "nonce"),
        ({"max_age": 0}, "max_age"),
        ({"replay": "sometimes"}, "replay"),
        ({"required_claims": "acr"}, "required_claims"),
    ],
)
def test_invalid_settings_are_rejected(change: dict[str, Any], name: str) -> None:
    valid = {"issuer": "https://login.example", "client_id": "television"}
    stored, _ = clean_settings(OIDCIDToken(), valid)
    assert stored["algorithms"] == ["RS256"]
    assert clean_settings(OIDCIDToken(), json.loads(json.dumps(stored)))[0] == stored
    with pytest.raises(ValidationError, match=name):
        clean_settings(OIDCIDToken(), valid | change)


# End to end.


@pytest.fixture
def offered(nagra: HeadEnd, oidc_server: HTTPSServer) -> HeadEnd:
    settings = {"issuer": oidc_server.url, "client_id": "television", **oidc_server.settings}
    service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
    service.enabled, service.settings = True, settings
    service.save()
    return nagra


def present(head_end: HeadEnd, jws: str, nonce: str = "n") -> Any:
    parameters = [{"name": "idToken", "value": jws}, {"name": "nonce", "value": nonce}]
    return head_end.post({"parameters": parameters}, x_auth_service_id="OIDC")


def test_an_id_token_is_exchanged_for_a_session_token_once(
    offered: HeadEnd, oidc_server: HTTPSServer
) -> None:
    jws = RSA.token(make_claims(oidc_server))
    assert present(offered, jws).status_code == 200
    again = present(offered, jws)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    wrong = present(offered, jws, "x")
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "nonce_mismatch")
    assert (
        present(offered, RSA.token(make_claims(oidc_server), kid="x")).json()["reason"] == "not_authenticated"
    )
    (service,) = [
        one for one in offered.discover().json()["availableServices"] if one["authServiceName"] == "OIDC"
    ]
    mandatory = {one["name"]: one["mandatory"] for one in service["endpoints"][0]["parameterProperties"]}
    assert mandatory == {"IdToken": True, "Nonce": False}


def test_an_unavailable_upstream_causes_a_503(offered: HeadEnd, oidc_server: HTTPSServer) -> None:
    oidc_server.replies["/keys"] = Reply(500)
    answer = present(offered, RSA.token(make_claims(oidc_server)))
    assert answer.status_code == 503
    assert answer["Retry-After"]
