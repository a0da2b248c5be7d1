"""The ID token: what its claims must say, and by which documents its keys are found."""

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
from providers.oidc_id_token.discovery import discovery as discovery_document
from providers.oidc_id_token.strategy import OIDCIDToken
from providers.upstream import documents
from tenants.models import Service
from tenants.services.settings import clean_settings
from tests.conftest import HeadEnd
from tests.providers.conftest import Clock
from tests.providers.confusion import ALGORITHMS, CONFUSED, EC, KEY_SET, RSA
from tests.upstream.authority import stranger
from tests.upstream.deadlines import HASTY, LONG, hasty_if_slow
from tests.upstream.https import HTTPSServer, Reply, as_json
from tests.upstream.signer import ABSENT, changed, signer
from tests.waiting import wait_until

RING = KeyRing("nagra", {"k": TrustedKey(7, "k", "HS256", bytes(range(32)))})
WELL_KNOWN = "/.well-known/openid-configuration"


def discovery(server: HTTPSServer, **changes: Any) -> Reply:
    good = {
        "issuer": server.url,
        "jwks_uri": f"{server.url}/keys",
        "id_token_signing_alg_values_supported": ["none", "HS256"],
        "anything": {"else": []},
    }
    return as_json(changed(good, changes))


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


@pytest.fixture(scope="module")
def steady() -> Iterator[HTTPSServer]:
    """One for the tables, which change nothing of it."""
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


def settings_of(server: HTTPSServer, deadline: float = LONG, **changes: Any) -> Mapping[str, Any]:
    good = {"issuer": server.url, "client_id": "television", "algorithms": ALGORITHMS, **server.settings}
    return {**clean_settings(OIDCIDToken(), good | changes)[1], "deadline": deadline}


def claims(server: HTTPSServer, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "iss": server.url,
        "aud": "television",
        "sub": "account-1",
        "iat": now,
        "exp": now + 300,
        "nonce": "n",
    }
    return changed(good, changes)


def verify(made: str, settings: Mapping[str, Any], nonce: str | None = "n") -> Identity:
    parameters = {"IdToken": made} | ({} if nonce is None else {"Nonce": nonce})
    return OIDCIDToken().verify(parameters, settings, RING)


def why(made: str, settings: Mapping[str, Any], nonce: str | None = "n") -> tuple[Any, Any]:
    with pytest.raises((VerificationFailed, UpstreamUnavailable)) as raised:
        verify(made, settings, nonce)
    if isinstance(raised.value, VerificationFailed):
        return raised.value.reason, raised.value.claim
    return raised.value.failure, None


TRUSTS = {"trusted_clients": "remote\nother"}

# claims that differ from a good token, settings, the parameter Nonce
ACCEPTED: Any = {
    "a good token": ({}, {}, "n"),
    "our client in an array": ({"aud": ["television"]}, {}, "n"),
    "azp of our own": ({"azp": "television"}, {}, "n"),
    "azp of a client that is trusted": ({"azp": "remote"}, TRUSTS, "n"),
    "audiences that are trusted": ({"aud": ["television", "other"], "azp": "remote"}, TRUSTS, "n"),
    "no nonce where it is off": ({"nonce": ABSENT}, {"nonce": "off"}, None),
    "another nonce where it is off": ({}, {"nonce": "off"}, "other"),
    "no nonce given where that is allowed": ({}, {"nonce": "if_given"}, None),
    "the nonce given where that is allowed": ({}, {"nonce": "if_given"}, "n"),
    "a nonce of any signs": ({"nonce": "é&= \n"}, {"replay": "off"}, "é&= \n"),
    "issued within the skew": ({"iat": lambda now: now + 20}, {}, "n"),
    "issued long ago where that is allowed": ({"iat": 1}, {"max_age": None}, "n"),
    "as old as may be": ({"iat": lambda now: now - 620}, {}, "n"),
    "expired within the skew": ({"exp": lambda now: now - 20}, {}, "n"),
    "an account in another claim": ({"sub": "x", "acct": "account-1"}, {"account_claim": "acct"}, "n"),
    "the tenant": ({"tenant": "nagra"}, {"tenant_claim": "tenant"}, "n"),
    "what is demanded": ({"acr": "high"}, {"required_claims": "acr=high"}, "n"),
    "a hash of an access token": ({"at_hash": "x", "auth_time": 1, "amr": ["pwd"]}, {}, "n"),
}  # fmt: skip

REFUSED: Any = {
    "iss missing": ({"iss": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "iss"),
    "another issuer": ({"iss": "https://evil.example"}, {}, "n", FailureReason.ISSUER_MISMATCH, "iss"),
    "aud missing": ({"aud": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "aud"),
    "another client": ({"aud": "other"}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "a trusted client alone": ({"aud": "other"}, TRUSTS, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "a stranger beside us": (
        {"aud": ["television", "x"], "azp": "television"}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud",
    ),
    "aud with a number": ({"aud": ["television", 5]}, {}, "n", FailureReason.AUDIENCE_MISMATCH, "aud"),
    "several audiences without azp": (
        {"aud": ["television", "other"]}, TRUSTS, "n", FailureReason.CLAIM_MISSING, "azp",
    ),
    "azp of a stranger": ({"azp": "x"}, TRUSTS, "n", FailureReason.AUTHORIZED_PARTY_MISMATCH, "azp"),
    "azp a list": ({"azp": ["television"]}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "azp null": ({"azp": None}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "azp empty": ({"azp": ""}, {}, "n", FailureReason.CLAIM_INVALID, "azp"),
    "nonce missing": ({"nonce": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "nonce"),
    "nonce not given": ({}, {}, None, FailureReason.NONCE_MISMATCH, "nonce"),
    "neither": ({"nonce": ABSENT}, {}, None, FailureReason.NONCE_MISMATCH, "nonce"),
    "another nonce": ({}, {}, "N", FailureReason.NONCE_MISMATCH, "nonce"),
    "an empty nonce": ({}, {}, "", FailureReason.NONCE_MISMATCH, "nonce"),
    "a nonce in a list": ({"nonce": ["n"]}, {}, "n", FailureReason.NONCE_MISMATCH, "nonce"),
    "another nonce, given freely": ({}, {"nonce": "if_given"}, "x", FailureReason.NONCE_MISMATCH, "nonce"),
    "a nonce given for none": (
        {"nonce": ABSENT}, {"nonce": "if_given"}, "n", FailureReason.CLAIM_MISSING, "nonce",
    ),
    "exp missing": ({"exp": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "exp"),
    "expired": ({"exp": lambda now: now - 60}, {}, "n", FailureReason.TOKEN_EXPIRED, "exp"),
    "iat missing": ({"iat": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "iat"),
    "iat a string": ({"iat": "1"}, {}, "n", FailureReason.CLAIM_INVALID, "iat"),
    "iat to come": ({"iat": lambda now: now + 60}, {}, "n", FailureReason.TOKEN_NOT_YET_VALID, "iat"),
    "issued too long ago": ({"iat": lambda now: now - 640}, {}, "n", FailureReason.TOKEN_EXPIRED, "iat"),
    "exp in milliseconds": ({"exp": lambda now: now * 1000}, {}, "n", FailureReason.LIFETIME_TOO_LONG, "exp"),
    "a lifetime too long": ({}, {"max_lifetime": 60}, "n", FailureReason.LIFETIME_TOO_LONG, "exp"),
    "sub missing": ({"sub": ABSENT}, {}, "n", FailureReason.CLAIM_MISSING, "sub"),
    "sub a negative number": ({"sub": -5}, {}, "n", FailureReason.CLAIM_INVALID, "sub"),
    "another tenant": ({"t": "sunrise"}, {"tenant_claim": "t"}, "n", FailureReason.TENANT_MISMATCH, "t"),
    "a required claim otherwise": (
        {"acr": "low"}, {"required_claims": "acr=high"}, "n", FailureReason.CLAIM_MISMATCH, "acr",
    ),
    "neither jti nor nonce where one is required": (
        {"nonce": ABSENT}, {"nonce": "off", "replay": "required"}, None, FailureReason.CLAIM_MISSING, "jti",
    ),
    "jti a number": ({"jti": 5}, {}, "n", FailureReason.CLAIM_INVALID, "jti"),
}  # fmt: skip


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "nonce"), ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(
    steady: HTTPSServer, changes: dict[str, Any], settings: dict[str, Any], nonce: str | None
) -> None:
    identity = verify(RSA.token(claims(steady, **changes)), settings_of(steady, **settings), nonce)
    assert (identity.account_id, identity.key_id) == ("account-1", None)


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "nonce", "word", "claim"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(
    steady: HTTPSServer,
    changes: dict[str, Any],
    settings: dict[str, Any],
    nonce: str | None,
    word: FailureReason,
    claim: str,
) -> None:
    made = RSA.token(claims(steady, **changes))
    assert why(made, settings_of(steady, **settings), nonce) == (word, claim)


@pytest.mark.parametrize(("make", "word"), CONFUSED.values(), ids=CONFUSED)
def test_it_takes_no_algorithm_and_no_key_for_another(
    steady: HTTPSServer, make: Any, word: FailureReason
) -> None:
    assert why(make(claims(steady)), settings_of(steady))[0] is word


OPERATOR_TOKEN = {"typ": "GetSessionTokenAuthN", "OpfTenantId": "nagra", "OpfAccountId": "account-1"}
LOGOUT = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "nonce": ABSENT}

# A token of another purpose: claims, header, settings, why it is refused.
OTHER_PURPOSE: Any = {
    "an access token": ({}, {"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "an access token in full": ({}, {"typ": "application/at+jwt"}, {}, FailureReason.MALFORMED),
    "an access token that does not say so": (
        {"nonce": ABSENT, "scope": "openid"}, {}, {}, FailureReason.CLAIM_MISSING,
    ),
    "an access token for an API": (
        {"aud": "https://api.example"}, {}, {"nonce": "off"}, FailureReason.AUDIENCE_MISMATCH,
    ),
    "a logout token": (LOGOUT, {}, {"nonce": "off"}, FailureReason.TYPE_MISMATCH),
    "a logout token by its header": (LOGOUT, {"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "an OperatorAuthToken": ({**OPERATOR_TOKEN, "aud": "ags"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "an access token of AGS": ({"typ": "DevAuthN", "aud": "nagra"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "an algorithm that is not allowed": ({}, {}, {"algorithms": ["ES256"]}, FailureReason.KEY_UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "header", "settings", "word"), OTHER_PURPOSE.values(), ids=OTHER_PURPOSE)
def test_it_takes_no_token_of_another_purpose(
    steady: HTTPSServer,
    changes: dict[str, Any],
    header: dict[str, Any],
    settings: dict[str, Any],
    word: FailureReason,
) -> None:
    made = RSA.token(claims(steady, **changes), **header)
    assert why(made, settings_of(steady, **settings))[0] is word


def test_it_is_accepted_once_by_its_jti_or_else_by_its_nonce(steady: HTTPSServer) -> None:
    settings = settings_of(steady, replay="required")
    good = claims(steady, jti="j")
    identity = verify(RSA.token(good), settings)
    assert (identity.jti, identity.replayable_until) == ("j", good["exp"] + 300)
    first = verify(RSA.token(claims(steady)), settings).jti
    again = verify(RSA.token(claims(steady, sub="other")), settings).jti
    other = verify(RSA.token(claims(steady, nonce="other")), settings, "other").jti
    assert first
    assert first == again != other
    assert verify(RSA.token(good), settings_of(steady, replay="off")).jti is None
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
def test_its_settings_have_bounds(change: dict[str, Any], name: str) -> None:
    good = {"issuer": "https://login.example", "client_id": "television"}
    stored, _ = clean_settings(OIDCIDToken(), good)
    assert stored["algorithms"] == ["RS256"]
    assert clean_settings(OIDCIDToken(), json.loads(json.dumps(stored)))[0] == stored
    with pytest.raises(ValidationError, match=name):
        clean_settings(OIDCIDToken(), good | change)


# The two documents.


def test_both_documents_are_fetched_once_for_many_tokens(server: HTTPSServer) -> None:
    settings = settings_of(server)
    for own in (RSA, EC, RSA):
        assert verify(own.token(claims(server)), settings)
    assert sorted(asked.path for asked in server.asked) == [WELL_KNOWN, "/keys"]


def test_prepared_both_are_there_before_the_first_token(server: HTTPSServer) -> None:
    settings = settings_of(server)
    OIDCIDToken().prepare(settings, RING)
    wait_until(lambda: len(server.asked) == 2, "they are not fetched")
    assert verify(RSA.token(claims(server)), settings)
    assert len(server.asked) == 2
    assert OIDCIDToken().document_urls(settings, RING) == {
        "discovery document": f"{server.url}{WELL_KNOWN}",
        "key set": f"{server.url}/keys",
    }


def test_before_it_is_prepared_the_address_of_the_key_set_is_not_known(server: HTTPSServer) -> None:
    server.replies[WELL_KNOWN] = replace(discovery(server), wait=NEVER)
    known = OIDCIDToken().document_urls(settings_of(server), RING)
    assert known == {"discovery document": f"{server.url}{WELL_KNOWN}"}


def test_an_issuer_with_a_path_or_a_slash_has_its_document_below_it(server: HTTPSServer) -> None:
    for issuer in (f"{server.url}/", f"{server.url}/realms/tv"):
        path = issuer.removeprefix(server.url).rstrip("/") + WELL_KNOWN
        server.replies[path] = discovery(server, issuer=issuer)
        assert verify(RSA.token(claims(server, iss=issuer)), settings_of(server, issuer=issuer))


def test_keys_may_be_on_another_host_than_the_issuer(server: HTTPSServer) -> None:
    with HTTPSServer() as other:
        other.replies["/keys"] = as_json({"keys": [signer("ES256", "other").jwk()]})
        server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{other.url}/keys")
        assert verify(signer("ES256", "other").token(claims(server)), settings_of(server))


def test_a_discovery_document_does_not_lead_into_the_inside_of_a_network(
    server: HTTPSServer, settings: Any
) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network("127.0.0.1/32")]
    inside = server.url.replace("127.0.0.1", "127.0.0.2")
    server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{inside}/keys")
    assert why(RSA.token(claims(server)), settings_of(server))[0] is UpstreamFailure.ADDRESS_FORBIDDEN


def test_keys_rotate_and_vanish(server: HTTPSServer, clock: Clock) -> None:
    settings, new = settings_of(server), signer("ES256", "new")
    verify(RSA.token(claims(server)), settings)
    server.replies["/keys"] = as_json({"keys": [new.jwk()]})
    assert why(new.token(claims(server)), settings)[0] is FailureReason.KEY_UNKNOWN, "not within the gap"
    clock.ahead = documents.GAP + 1
    assert verify(new.token(claims(server)), settings)
    assert why(RSA.token(claims(server)), settings)[0] is FailureReason.KEY_UNKNOWN


def test_a_key_set_that_has_moved_is_found(server: HTTPSServer, clock: Clock) -> None:
    settings, new = settings_of(server), signer("ES256", "new")
    verify(RSA.token(claims(server)), settings)
    server.replies["/moved"] = as_json({"keys": [new.jwk()]})
    server.replies[WELL_KNOWN] = discovery(server, jwks_uri=f"{server.url}/moved")
    clock.ahead = documents.FRESH_FOR + 1
    assert verify(new.token(claims(server)), settings)


def test_neither_document_is_shared_with_another_tenant(server: HTTPSServer) -> None:
    settings = settings_of(server)
    verify(RSA.token(claims(server)), settings)
    OIDCIDToken().verify(
        {"IdToken": RSA.token(claims(server)), "Nonce": "n"}, settings, KeyRing("sunrise", {})
    )
    assert len(server.asked) == 4


NEVER = threading.Event()
INVALID = UpstreamFailure.RESPONSE_INVALID
TIMEOUT = UpstreamFailure.TIMEOUT
TOO_LARGE = UpstreamFailure.RESPONSE_TOO_LARGE
# replies of discovery document and key set, what the caller hears
FAILURES: Any = {
    "no discovery document": (lambda server: Reply(404), None, INVALID),
    "a discovery document that redirects": (
        lambda server: Reply(301, b"", {"Location": "/other"}), None, INVALID,
    ),
    "a discovery document that is none": (lambda server: Reply(200, b"<html>"), None, INVALID),
    "a discovery document that is an array": (lambda server: Reply(200, b"[]"), None, INVALID),
    "that of another issuer": (
        lambda server: discovery(server, issuer="https://evil.example"), None, INVALID,
    ),
    "that of nobody": (lambda server: discovery(server, issuer=ABSENT), None, INVALID),
    "without a key set": (lambda server: discovery(server, jwks_uri=ABSENT), None, INVALID),
    "a key set that is a number": (lambda server: discovery(server, jwks_uri=5), None, INVALID),
    "a key set over http": (
        lambda server: discovery(server, jwks_uri="http://127.0.0.1/keys"), None, INVALID,
    ),
    "a key set in a file": (
        lambda server: discovery(server, jwks_uri="file:///etc/passwd"), None, INVALID,
    ),
    "a discovery document that is slow": (lambda server: Reply(200, b"{}", wait=NEVER), None, TIMEOUT),
    "a discovery document that is huge": (
        lambda server: Reply(200, b" " * (documents.LIMIT + 1)), None, TOO_LARGE,
    ),
    "a key set that is away": (discovery, Reply(503), INVALID),
    "a key set that is slow": (discovery, Reply(200, b"{}", wait=NEVER), TIMEOUT),
    "a key set that is huge": (discovery, Reply(200, b" " * (documents.LIMIT + 1)), TOO_LARGE),
    "a key set without a key": (discovery, as_json({"keys": []}), INVALID),
}  # fmt: skip


@pytest.mark.parametrize(("document", "key_set", "outage"), FAILURES.values(), ids=FAILURES)
def test_without_either_document_it_is_left_open_and_says_why(
    server: HTTPSServer, document: Any, key_set: Reply | None, outage: UpstreamFailure
) -> None:
    server.replies[WELL_KNOWN] = document(server)
    server.replies["/keys"] = key_set or as_json(KEY_SET)
    settings = settings_of(server, deadline=hasty_if_slow(outage))
    assert why(RSA.token(claims(server)), settings)[0] is outage
    with pytest.raises(UpstreamUnavailable):
        list(OIDCIDToken().check(settings, RING))


def test_what_the_first_document_has_used_of_the_deadline_the_second_has_not(
    server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(strategy, "time", clock)

    def use_all_of_it(_: Any) -> Reply:
        clock.ahead = LONG
        return discovery(server)

    server.replies[WELL_KNOWN] = use_all_of_it
    # Whoever waits for it gets it in the end, before the deadline has passed twice.
    server.replies["/keys"] = replace(as_json(KEY_SET), wait=NEVER)
    assert why(RSA.token(claims(server)), settings_of(server))[0] is UpstreamFailure.TIMEOUT
    paths = [WELL_KNOWN, "/keys"]
    wait_until(lambda: [asked.path for asked in server.asked] == paths, "the key set is not fetched")


@pytest.mark.parametrize(("document", "key_set", "outage"), FAILURES.values(), ids=FAILURES)
def test_while_either_fails_the_last_good_copies_serve(
    server: HTTPSServer,
    clock: Clock,
    document: Any,
    key_set: Reply | None,
    outage: UpstreamFailure,
) -> None:
    settings = settings_of(server)
    verify(RSA.token(claims(server)), settings)
    server.replies[WELL_KNOWN] = document(server)
    server.replies["/keys"] = key_set or as_json(KEY_SET)
    if outage is UpstreamFailure.TIMEOUT:
        first = discovery_document(settings, RING.tenant)
        for each in (first, first.current()):
            each.source = replace(each.source, deadline=HASTY)
    clock.ahead = documents.FRESH_FOR + 1
    assert verify(RSA.token(claims(server)), settings)
    clock.ahead = documents.KEPT_FOR + 1
    assert why(RSA.token(claims(server)), settings)[0] is outage


def test_a_server_that_nobody_vouches_for_is_not_believed() -> None:
    with HTTPSServer(stranger()) as server:
        server.replies[WELL_KNOWN] = discovery(server)
        assert why(RSA.token(claims(server)), settings_of(server))[0] is UpstreamFailure.CERTIFICATE_UNTRUSTED


def test_check_says_what_both_have(server: HTTPSServer) -> None:
    found = [finding.message for finding in OIDCIDToken().check(settings_of(server), RING)]
    assert found == [
        f"The discovery document is that of {server.url}.",
        f"The key set at {server.address} has 4 usable keys: "
        "RS256 (RS256), ES256 (ES256), EdDSA (EdDSA), PS256 (PS256).",
    ]


# Through HTTP.


@pytest.fixture
def offered(nagra: HeadEnd, server: HTTPSServer) -> HeadEnd:
    settings = {"issuer": server.url, "client_id": "television", **server.settings}
    service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
    service.enabled, service.settings = True, settings
    service.save()
    return nagra


def present(head_end: HeadEnd, made: str, nonce: str = "n") -> Any:
    parameters = [{"name": "idToken", "value": made}, {"name": "nonce", "value": nonce}]
    return head_end.post({"parameters": parameters}, x_auth_service_id="OIDC")


def test_an_id_token_gets_a_session_token_once(offered: HeadEnd, server: HTTPSServer) -> None:
    made = RSA.token(claims(server))
    assert present(offered, made).status_code == 200
    again = present(offered, made)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    wrong = present(offered, made, "x")
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "nonce_mismatch")
    assert present(offered, RSA.token(claims(server), kid="x")).json()["reason"] == "not_authenticated"
    (service,) = [
        one for one in offered.discover().json()["availableServices"] if one["authServiceName"] == "OIDC"
    ]
    told = {one["name"]: one["mandatory"] for one in service["endpoints"][0]["parameterProperties"]}
    assert told == {"IdToken": True, "Nonce": False}


def test_an_upstream_that_is_away_is_a_503(offered: HeadEnd, server: HTTPSServer) -> None:
    server.replies["/keys"] = Reply(500)
    answer = present(offered, RSA.token(claims(server)))
    assert answer.status_code == 503
    assert answer["Retry-After"]
