"""The provider `oidc_id_token`: claims, and the two documents."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from providers.contract import (
    FailureReason,
    Identity,
    KeyRing,
    TrustedKey,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.oidc_id_token import strategy
from providers.oidc_id_token.discovery import discovery_document
from providers.oidc_id_token.strategy import OIDCIDToken
from providers.upstream import documents
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.support.clients import HeadEnd
from tests.support.clock import StoppedClock
from tests.support.confused_tokens import ALGORITHMS, CONFUSED, EC, KEY_SET, RSA
from tests.support.upstream.authority import untrusted_authority
from tests.support.upstream.deadlines import LONG, SHORT, deadline_for
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import ABSENT, apply_changes, signer
from tests.support.waiting import wait_until

RING = KeyRing("nagra", {"k": TrustedKey(7, "k", "HS256", bytes(range(32)))})
WELL_KNOWN = "/.well-known/openid-configuration"


def discovery(server: HTTPSServer, **changes: Any) -> Reply:
    valid = {
        "issuer": server.url,
        "jwks_uri": f"{server.url}/keys",
        "id_token_signing_alg_values_supported": ["none", "HS256"],
        "anything": {"else": []},
    }
    return as_json(apply_changes(valid, changes))


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


@pytest.fixture(scope="module")
def steady() -> Iterator[HTTPSServer]:
    """A shared server for tests that do not change it."""
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


def settings_of(server: HTTPSServer, deadline: float = LONG, **changes: Any) -> Mapping[str, Any]:
    valid = {"issuer": server.url, "client_id": "television", "algorithms": ALGORITHMS, **server.settings}
    return {**clean_settings(OIDCIDToken(), valid | changes)[1], "deadline": deadline}


def claims(server: HTTPSServer, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    valid = {
        "iss": server.url,
        "aud": "television",
        "sub": "account-1",
        "iat": now,
        "exp": now + 300,
        "nonce": "n",
    }
    return apply_changes(valid, changes)


def verify(jws: str, settings: Mapping[str, Any], nonce: str | None = "n") -> Identity:
    parameters = {"IdToken": jws} | ({} if nonce is None else {"Nonce": nonce})
    return OIDCIDToken().verify(parameters, settings, RING)


def get_failure(jws: str, settings: Mapping[str, Any], nonce: str | None = "n") -> tuple[Any, Any]:
    with pytest.raises((VerificationFailed, UpstreamUnavailable)) as raised:
        verify(jws, settings, nonce)
    if isinstance(raised.value, VerificationFailed):
        return raised.value.reason, raised.value.claim
    return raised.value.failure, None


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
    identity = verify(RSA.token(claims(steady, **changes)), settings_of(steady, **settings), nonce)
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
    jws = RSA.token(claims(steady, **changes))
    assert get_failure(jws, settings_of(steady, **settings), nonce) == (reason, claim)


@pytest.mark.parametrize(("make", "reason"), CONFUSED.values(), ids=CONFUSED)
def test_confused_algorithms_and_keys_are_rejected(
    steady: HTTPSServer, make: Any, reason: FailureReason
) -> None:
    assert get_failure(make(claims(steady)), settings_of(steady))[0] is reason


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
    jws = RSA.token(claims(steady, **changes), **header)
    assert get_failure(jws, settings_of(steady, **settings))[0] is reason


def test_the_jti_or_else_the_nonce_prevents_replay(steady: HTTPSServer) -> None:
    settings = settings_of(steady, replay="required")
    valid = claims(steady, jti="j")
    identity = verify(RSA.token(valid), settings)
    assert (identity.jti, identity.replayable_until) == ("j", valid["exp"] + 300)
    first = verify(RSA.token(claims(steady)), settings).jti
    again = verify(RSA.token(claims(steady, sub="other")), settings).jti
    other = verify(RSA.token(claims(steady, nonce="other")), settings, "other").jti
    assert first
    assert first == again != other
    assert verify(RSA.token(valid), settings_of(steady, replay="off")).jti is None
    free = settings_of(steady, nonce="off")
    assert verify(RSA.token(claims(steady, nonce=ABSENT)), free, None).jti is None


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


# The two documents.


def test_both_documents_are_fetched_once_for_many_tokens(server: HTTPSServer) -> None:
    settings = settings_of(server)
    for own in (RSA, EC, RSA):
        assert verify(own.token(claims(server)), settings)
    assert sorted(asked.path for asked in server.requests) == [WELL_KNOWN, "/keys"]


def test_prepare_fetches_both_documents_before_the_first_token(server: HTTPSServer) -> None:
    settings = settings_of(server)
    OIDCIDToken().prepare(settings, RING)
    wait_until(lambda: len(server.requests) == 2, "they are not fetched")
    assert verify(RSA.token(claims(server)), settings)
    assert len(server.requests) == 2
    assert OIDCIDToken().document_urls(settings, RING) == {
        "discovery document": f"{server.url}{WELL_KNOWN}",
        "JWK Set": f"{server.url}/keys",
    }


def test_document_urls_lacks_the_jwk_set_until_discovery_is_fetched(server: HTTPSServer) -> None:
    server.replies[WELL_KNOWN] = replace(discovery(server), wait=NEVER)
    known = OIDCIDToken().document_urls(settings_of(server), RING)
    assert known == {"discovery document": f"{server.url}{WELL_KNOWN}"}


def test_the_discovery_url_of_an_issuer_with_a_path_or_a_trailing_slash(server: HTTPSServer) -> None:
    for issuer in (f"{server.url}/", f"{server.url}/realms/tv"):
        path = issuer.removeprefix(server.url).rstrip("/") + WELL_KNOWN
        server.replies[path] = discovery(server, issuer=issuer)
        assert verify(RSA.token(claims(server, iss=issuer)), settings_of(server, issuer=issuer))


def test_the_jwk_set_may_be_on_another_host(server: HTTPSServer) -> None:
    with HTTPSServer() as other:
        other.replies["/keys"] = as_json({"keys": [signer("ES256", "other").jwk()]})
        server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{other.url}/keys")
        assert verify(signer("ES256", "other").token(claims(server)), settings_of(server))


def test_jwks_uri_must_not_be_a_private_address(server: HTTPSServer, settings: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network("127.0.0.1/32")]
    inside = server.url.replace("127.0.0.1", "127.0.0.2")
    server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{inside}/keys")
    assert get_failure(RSA.token(claims(server)), settings_of(server))[0] is UpstreamFailure.ADDRESS_FORBIDDEN


def test_keys_are_rotated_and_removed(server: HTTPSServer, clock: StoppedClock) -> None:
    settings, new = settings_of(server), signer("ES256", "new")
    verify(RSA.token(claims(server)), settings)
    server.replies["/keys"] = as_json({"keys": [new.jwk()]})
    assert get_failure(new.token(claims(server)), settings)[0] is FailureReason.KEY_UNKNOWN, (
        "fetched again within the interval"
    )
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert verify(new.token(claims(server)), settings)
    assert get_failure(RSA.token(claims(server)), settings)[0] is FailureReason.KEY_UNKNOWN


def test_a_new_jwks_uri_is_used(server: HTTPSServer, clock: StoppedClock) -> None:
    settings, new = settings_of(server), signer("ES256", "new")
    verify(RSA.token(claims(server)), settings)
    server.replies["/moved"] = as_json({"keys": [new.jwk()]})
    server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{server.url}/moved")
    clock.ahead = documents.MAX_AGE + 1
    assert verify(new.token(claims(server)), settings)


def test_tenants_do_not_share_documents(server: HTTPSServer) -> None:
    settings = settings_of(server)
    verify(RSA.token(claims(server)), settings)
    OIDCIDToken().verify(
        {"IdToken": RSA.token(claims(server)), "Nonce": "n"}, settings, KeyRing("sunrise", {})
    )
    assert len(server.requests) == 4


NEVER = threading.Event()
INVALID = UpstreamFailure.RESPONSE_INVALID
TIMEOUT = UpstreamFailure.TIMEOUT
TOO_LARGE = UpstreamFailure.RESPONSE_TOO_LARGE
# responses for discovery document and JWK Set, failure
FAILURES: Any = {
    "no discovery document": (lambda server: Reply(404), None, INVALID),
    "a discovery document that redirects": (
        lambda server: Reply(301, b"", {"Location": "/other"}), None, INVALID,
    ),
    "an invalid discovery document": (lambda server: Reply(200, b"<html>"), None, INVALID),
    "a discovery document that is an array": (lambda server: Reply(200, b"[]"), None, INVALID),
    "a discovery document of another issuer": (
        lambda server: discovery(server, issuer="https://evil.example"), None, INVALID,
    ),
    "a discovery document without issuer": (lambda server: discovery(server, issuer=ABSENT), None, INVALID),
    "no jwks_uri": (lambda server: discovery(server, jwks_uri=ABSENT), None, INVALID),
    "a jwks_uri that is a number": (lambda server: discovery(server, jwks_uri=5), None, INVALID),
    "a jwks_uri with http": (
        lambda server: discovery(server, jwks_uri="http://127.0.0.1/keys"), None, INVALID,
    ),
    "a jwks_uri with file": (
        lambda server: discovery(server, jwks_uri="file:///etc/passwd"), None, INVALID,
    ),
    "a slow discovery document": (lambda server: Reply(200, b"{}", wait=NEVER), None, TIMEOUT),
    "a huge discovery document": (
        lambda server: Reply(200, b" " * (documents.LIMIT + 1)), None, TOO_LARGE,
    ),
    "an unavailable JWK Set": (discovery, Reply(503), INVALID),
    "a slow JWK Set": (discovery, Reply(200, b"{}", wait=NEVER), TIMEOUT),
    "a huge JWK Set": (discovery, Reply(200, b" " * (documents.LIMIT + 1)), TOO_LARGE),
    "an empty JWK Set": (discovery, as_json({"keys": []}), INVALID),
}  # fmt: skip


@pytest.mark.parametrize(("document", "key_set", "failure"), FAILURES.values(), ids=FAILURES)
def test_without_either_document_the_upstream_is_unavailable(
    server: HTTPSServer, document: Any, key_set: Reply | None, failure: UpstreamFailure
) -> None:
    server.replies[WELL_KNOWN] = document(server)
    server.replies["/keys"] = key_set or as_json(KEY_SET)
    settings = settings_of(server, deadline=deadline_for(failure))
    assert get_failure(RSA.token(claims(server)), settings)[0] is failure
    with pytest.raises(UpstreamUnavailable):
        list(OIDCIDToken().check(settings, RING))


def test_both_documents_share_one_deadline(server: HTTPSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(strategy, "time", clock)

    def spend_deadline(_: Any) -> Reply:
        clock.ahead = LONG
        return discovery(server)

    server.replies[WELL_KNOWN] = spend_deadline
    # A second full deadline would be enough to receive it.
    server.replies["/keys"] = replace(as_json(KEY_SET), wait=NEVER)
    assert get_failure(RSA.token(claims(server)), settings_of(server))[0] is UpstreamFailure.TIMEOUT
    paths = [WELL_KNOWN, "/keys"]
    wait_until(lambda: [asked.path for asked in server.requests] == paths, "the JWK Set is not fetched")


@pytest.mark.parametrize(("document", "key_set", "failure"), FAILURES.values(), ids=FAILURES)
def test_while_either_fails_the_last_copies_are_used(
    server: HTTPSServer,
    clock: StoppedClock,
    document: Any,
    key_set: Reply | None,
    failure: UpstreamFailure,
) -> None:
    settings = settings_of(server)
    verify(RSA.token(claims(server)), settings)
    server.replies[WELL_KNOWN] = document(server)
    server.replies["/keys"] = key_set or as_json(KEY_SET)
    if failure is UpstreamFailure.TIMEOUT:
        first = discovery_document(settings, RING.tenant)
        for each in (first, first.current()):
            each.source = replace(each.source, deadline=SHORT)
    clock.ahead = documents.MAX_AGE + 1
    assert verify(RSA.token(claims(server)), settings)
    clock.ahead = documents.MAX_STALE_AGE + 1
    assert get_failure(RSA.token(claims(server)), settings)[0] is failure


def test_an_untrusted_certificate_is_rejected() -> None:
    with HTTPSServer(untrusted_authority()) as server:
        server.replies[WELL_KNOWN] = discovery(server)
        assert (
            get_failure(RSA.token(claims(server)), settings_of(server))[0]
            is UpstreamFailure.CERTIFICATE_UNTRUSTED
        )


def test_check_reports_both_documents(server: HTTPSServer) -> None:
    found = [result.message for result in OIDCIDToken().check(settings_of(server), RING)]
    assert found == [
        f"The discovery document of {server.url} is valid.",
        f"The JWK Set at {server.address} has 4 usable keys: "
        "RS256 (RS256), ES256 (ES256), EdDSA (EdDSA), PS256 (PS256).",
    ]


# End to end.


@pytest.fixture
def offered(nagra: HeadEnd, server: HTTPSServer) -> HeadEnd:
    settings = {"issuer": server.url, "client_id": "television", **server.settings}
    service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
    service.enabled, service.settings = True, settings
    service.save()
    return nagra


def present(head_end: HeadEnd, jws: str, nonce: str = "n") -> Any:
    parameters = [{"name": "idToken", "value": jws}, {"name": "nonce", "value": nonce}]
    return head_end.post({"parameters": parameters}, x_auth_service_id="OIDC")


def test_an_id_token_is_exchanged_for_a_session_token_once(offered: HeadEnd, server: HTTPSServer) -> None:
    jws = RSA.token(claims(server))
    assert present(offered, jws).status_code == 200
    again = present(offered, jws)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    wrong = present(offered, jws, "x")
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "nonce_mismatch")
    assert present(offered, RSA.token(claims(server), kid="x")).json()["reason"] == "not_authenticated"
    (service,) = [
        one for one in offered.discover().json()["availableServices"] if one["authServiceName"] == "OIDC"
    ]
    mandatory = {one["name"]: one["mandatory"] for one in service["endpoints"][0]["parameterProperties"]}
    assert mandatory == {"IdToken": True, "Nonce": False}


def test_an_unavailable_upstream_causes_a_503(offered: HeadEnd, server: HTTPSServer) -> None:
    server.replies["/keys"] = Reply(500)
    answer = present(offered, RSA.token(claims(server)))
    assert answer.status_code == 503
    assert answer["Retry-After"]
