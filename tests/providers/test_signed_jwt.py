"""The signed JWT: what its claims must say, where its keys come from, and what is taken for none."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from ags.sessions.tokens.jwt import SignOn, token_response
from providers.contract import (
    FailureReason,
    Identity,
    KeyRing,
    TrustedKey,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.signed_jwt.strategy import SignedJWT, _document
from providers.upstream import documents
from tenants.models import Service
from tenants.services.settings import clean_settings
from tenants.snapshot import snapshot
from tests.conftest import HeadEnd
from tests.providers.conftest import Clock
from tests.providers.confusion import ALGORITHMS, CONFUSED, EC, KEY_SET, RSA
from tests.upstream.deadlines import LONG, hasty_if_slow
from tests.upstream.https import HTTPSServer, Reply, as_json
from tests.upstream.signer import ABSENT, changed, shared, signer, token
from tests.waiting import wait_until

ISSUER = "https://login.operator.example"
RING = KeyRing("nagra", {"k": TrustedKey(7, "k", "HS256", bytes(range(32)))})
ENTERED = {
    "keys_from": "entered",
    "public_keys": json.dumps(KEY_SET),
    "algorithms": ALGORITHMS,
    "issuer": ISSUER,
    "audience": "ags",
}


def claims(**changes: Any) -> dict[str, Any]:
    good = {"iss": ISSUER, "aud": "ags", "sub": "account-1", "exp": int(time.time()) + 300}
    return changed(good, changes)


def verify(made: str, **settings: Any) -> Identity:
    _, cleaned = clean_settings(SignedJWT(), ENTERED | settings)
    return SignedJWT().verify({"Token": made}, cleaned, RING)


def refusal(made: str, **settings: Any) -> tuple[FailureReason, str | None]:
    with pytest.raises(VerificationFailed) as refused:
        verify(made, **settings)
    return refused.value.reason, refused.value.claim


MATCHED = {"tenant_claim": "tenant", "required_claims": "acr=high\nok=true\nx=a=b"}
ALL_MATCHED = {"tenant": "nagra", "acr": "high", "ok": True, "x": "a=b"}

# claims that differ from a good token, settings of the service
ACCEPTED: Any = {
    "a good token": ({}, {}),
    "an audience among others": ({"aud": ["others", "ags"]}, {}),
    "a fraction of a second": ({"exp": lambda now: now + 1.5}, {}),
    "expired within the skew": ({"exp": lambda now: now - 20}, {}),
    "nbf and iat within the skew": ({"nbf": lambda now: now + 20, "iat": lambda now: now + 20}, {}),
    "within the longest lifetime": ({"exp": lambda now: now + 50}, {"max_lifetime": 60}),
    "an account of 255 characters": ({"sub": "ä" * 255}, {}),
    "an account that is a number": ({"sub": 2**53 - 1}, {}),
    "an account of zero": ({"sub": 0}, {}),
    "an account in another claim": (
        {"sub": 5, "https://operator.example/account": "account-1"},
        {"account_claim": "https://operator.example/account"},
    ),
    "all that is demanded": (ALL_MATCHED, MATCHED),
    "a boolean spelt as a string": ({**ALL_MATCHED, "ok": "true"}, MATCHED),
    "a tenant where no claim names it": ({"tenant": "sunrise"}, {}),
    "a jti": ({"jti": "j"}, {"replay": "required"}),
    "a jti of any type where it is ignored": ({"jti": 5}, {"replay": "off"}),
    "other claims": ({"typ": "x", "anything": {"at": ["all"]}}, {}),
}

REFUSED: Any = {
    "iss missing": ({"iss": ABSENT}, {}, FailureReason.CLAIM_MISSING, "iss"),
    "another issuer": ({"iss": "https://evil.example"}, {}, FailureReason.ISSUER_MISMATCH, "iss"),
    "the issuer with a slash": ({"iss": f"{ISSUER}/"}, {}, FailureReason.ISSUER_MISMATCH, "iss"),
    "the issuer in a list": ({"iss": [ISSUER]}, {}, FailureReason.ISSUER_MISMATCH, "iss"),
    "aud missing": ({"aud": ABSENT}, {}, FailureReason.CLAIM_MISSING, "aud"),
    "another audience": ({"aud": "other"}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "an audience that contains ours": ({"aud": "agsx"}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud empty": ({"aud": []}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud with a number": ({"aud": ["ags", 5]}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud in a list in a list": ({"aud": [["ags"]]}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud an object": ({"aud": {"ags": 1}}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "exp missing": ({"exp": ABSENT}, {}, FailureReason.CLAIM_MISSING, "exp"),
    "exp a string": ({"exp": "2000000000"}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp true": ({"exp": True}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp of 400 digits": ({"exp": 10**400}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "expired": ({"exp": lambda now: now - 60}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "expired, no skew": ({"exp": lambda now: now - 1}, {"clock_skew": 0}, FailureReason.TOKEN_EXPIRED, "exp"),
    "nbf to come": ({"nbf": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "nbf"),
    "iat to come": ({"iat": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "iat"),
    "exp in milliseconds": ({"exp": lambda now: now * 1000}, {}, FailureReason.LIFETIME_TOO_LONG, "exp"),
    "a lifetime too long": ({}, {"max_lifetime": 60}, FailureReason.LIFETIME_TOO_LONG, "exp"),
    "account missing": ({"sub": ABSENT}, {}, FailureReason.CLAIM_MISSING, "sub"),
    "account empty": ({"sub": ""}, {}, FailureReason.CLAIM_INVALID, "sub"),
    **{
        f"account {value}": ({"sub": value}, {}, FailureReason.CLAIM_INVALID, "sub")
        for value in (2**53, -1, 1.0, 0.5, True, False, [5])
    },
    "account with a line break": ({"sub": "a\nb"}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "account of 256 characters": ({"sub": "a" * 256}, {}, FailureReason.CLAIM_INVALID, "sub"),
    "account missing in its claim": (
        {},
        {"account_claim": "account"},
        FailureReason.CLAIM_MISSING,
        "account",
    ),
    "tenant missing": ({}, {"tenant_claim": "tenant"}, FailureReason.CLAIM_MISSING, "tenant"),
    "another tenant": (
        {**ALL_MATCHED, "tenant": "sunrise"},
        MATCHED,
        FailureReason.TENANT_MISMATCH,
        "tenant",
    ),
    "tenant in a list": (
        {**ALL_MATCHED, "tenant": ["nagra"]},
        MATCHED,
        FailureReason.CLAIM_INVALID,
        "tenant",
    ),
    "a required claim missing": ({**ALL_MATCHED, "acr": ABSENT}, MATCHED, FailureReason.CLAIM_MISSING, "acr"),
    "a required claim otherwise": (
        {**ALL_MATCHED, "acr": "low"},
        MATCHED,
        FailureReason.CLAIM_MISMATCH,
        "acr",
    ),
    "a required claim in a list": (
        {**ALL_MATCHED, "acr": ["high"]},
        MATCHED,
        FailureReason.CLAIM_MISMATCH,
        "acr",
    ),
    "false for true": ({**ALL_MATCHED, "ok": False}, MATCHED, FailureReason.CLAIM_MISMATCH, "ok"),
    "1 for true": ({**ALL_MATCHED, "ok": 1}, MATCHED, FailureReason.CLAIM_MISMATCH, "ok"),
    "a number for its digits": ({"a": 1}, {"required_claims": "a=1"}, FailureReason.CLAIM_MISMATCH, "a"),
    "jti missing where required": ({}, {"replay": "required"}, FailureReason.CLAIM_MISSING, "jti"),
    "jti a number": ({"jti": 5}, {}, FailureReason.CLAIM_INVALID, "jti"),
}


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings"), ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    identity = verify(EC.token(claims(**changes)), **settings)
    sub = "account-1" if "account_claim" in settings else changes.get("sub", "account-1")
    assert identity.account_id == str(sub)
    assert identity.key_id is None


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "word", "claim"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(
    changes: dict[str, Any], settings: dict[str, Any], word: FailureReason, claim: str
) -> None:
    assert refusal(EC.token(claims(**changes)), **settings) == (word, claim)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_accepts_each_algorithm_from_pem_certificate_and_jwk(algorithm: str) -> None:
    own = signer(algorithm)
    pem = {"key_id": algorithm, "algorithms": [algorithm]}
    made = own.token(claims())
    assert verify(made, **pem, public_keys=own.pem).account_id == "account-1"
    assert verify(made, **pem, public_keys=own.certificate).account_id == "account-1"
    assert verify(made, algorithms=[algorithm], public_keys=json.dumps(own.jwk())).account_id == "account-1"


def test_a_jti_is_guarded_for_as_long_as_any_setting_would_accept_the_token() -> None:
    expires = int(time.time()) + 50
    identity = verify(EC.token(claims(jti="j", exp=expires)), clock_skew=0)
    assert (identity.jti, identity.replayable_until) == ("j", expires + 300)
    assert verify(EC.token(claims(jti="j")), replay="off").jti is None


IGNORED = {
    "jwk": signer("ES256", "evil").jwk(kid="ES256"),
    "jku": "https://evil.example/keys",
    "x5u": "https://evil.example/cert",
    "x5c": ["MIIB"],
    "x5t__S256": "abc",
    "cty": "JWT",
    "epk": {},
}

# header members that differ, settings
HEADERS_ACCEPTED: Any = {
    "without typ": ({}, {}),
    "with typ JWT": ({"typ": "JWT"}, {}),
    "with typ in full": ({"typ": "application/JWT"}, {}),
    "an access token where these are wanted": ({"typ": "at+jwt"}, {"header_type": "at+jwt"}),
    "one in full": ({"typ": "application/at+jwt"}, {"header_type": "at+jwt"}),
    "one in other letters": ({"typ": "AT+JWT"}, {"header_type": "at+jwt"}),
    "one that staff wrote in other letters": ({"typ": "at+jwt"}, {"header_type": "At+Jwt"}),
    **{f"the member {name}": ({name: value}, {}) for name, value in IGNORED.items()},
}
HEADERS_REFUSED: Any = {
    "an access token": ({"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "a logout token": ({"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "any JWT where access tokens are wanted": (
        {"typ": "JWT"},
        {"header_type": "at+jwt"},
        FailureReason.MALFORMED,
    ),
    "no typ where one is wanted": ({}, {"header_type": "at+jwt"}, FailureReason.MALFORMED),
    "typ a list": ({"typ": ["JWT"]}, {}, FailureReason.MALFORMED),
    "typ a sign that is k in lower case": ({"typ": "\u212a"}, {"header_type": "k"}, FailureReason.MALFORMED),
    "no kid": ({"kid": ABSENT}, {}, FailureReason.MALFORMED),
    **{
        f"the member {name}": ({name: value}, {}, FailureReason.HEADER_MEMBER_FORBIDDEN)
        for name, value in {"crit": ["exp"], "b64": True}.items()
    },
}


@pytest.mark.parametrize(("header", "settings"), HEADERS_ACCEPTED.values(), ids=HEADERS_ACCEPTED)
def test_it_accepts_the_header(header: dict[str, Any], settings: dict[str, Any]) -> None:
    assert verify(EC.token(claims(), **header), **settings).account_id == "account-1"


@pytest.mark.parametrize(("header", "settings", "word"), HEADERS_REFUSED.values(), ids=HEADERS_REFUSED)
def test_it_refuses_the_header(header: dict[str, Any], settings: dict[str, Any], word: FailureReason) -> None:
    assert refusal(EC.token(claims(), **header), **settings) == (word, None)


@pytest.mark.parametrize(("make", "word"), CONFUSED.values(), ids=CONFUSED)
def test_it_takes_no_algorithm_and_no_key_for_another(make: Any, word: FailureReason) -> None:
    assert refusal(make(claims()))[0] is word


OPERATOR_TOKEN = {"typ": "GetSessionTokenAuthN", "OpfTenantId": "nagra", "OpfAccountId": "account-1"}

# A token of another purpose, or with a key that is: claims, header, settings, why it is refused.
OTHER_PURPOSE: Any = {
    "an access token of the issuer": ({}, {"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "an ID token where access tokens are wanted": (
        {"nonce": "n"},
        {},
        {"header_type": "at+jwt"},
        FailureReason.MALFORMED,
    ),
    "an ID token for another client": ({"aud": "television"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "a logout token": ({"events": {"http://logout": {}}}, {}, {}, FailureReason.TYPE_MISMATCH),
    "a logout token by its header": ({}, {"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "an OperatorAuthToken": ({**OPERATOR_TOKEN, "iss": ABSENT}, {}, {}, FailureReason.CLAIM_MISSING),
    "a key for encryption": (
        {},
        {},
        {"public_keys": json.dumps({"keys": [RSA.jwk(), EC.jwk(use="enc")]})},
        FailureReason.KEY_UNKNOWN,
    ),
    "an algorithm that is not allowed": ({}, {}, {"algorithms": ["RS256"]}, FailureReason.KEY_UNKNOWN),
}


@pytest.mark.parametrize(("changes", "header", "settings", "word"), OTHER_PURPOSE.values(), ids=OTHER_PURPOSE)
def test_it_takes_no_token_of_another_purpose(
    changes: dict[str, Any], header: dict[str, Any], settings: dict[str, Any], word: FailureReason
) -> None:
    assert refusal(EC.token(claims(**changes), **header), **settings)[0] is word


def test_the_tokens_of_ags_itself_prove_nothing_even_where_its_own_keys_are_trusted(nagra: HeadEnd) -> None:
    tenant = snapshot.get_tenant("nagra")
    assert tenant
    now = time.time()
    issued = token_response(tenant, SignOn("account-1", "c" * 32, "s" * 32, 1, now + 99, now + 999))
    own = {"public_keys": json.dumps({"keys": [dict(key) for key in tenant.key_set]})}
    own |= {"issuer": tenant.rules.issuer or ISSUER, "audience": tenant.rules.audience}
    assert refusal(issued["access_token"])[0] is FailureReason.KEY_UNKNOWN
    assert refusal(issued["refresh_token"])[0] is FailureReason.KEY_UNKNOWN
    assert refusal(issued["refresh_token"], **own)[0] is FailureReason.KEY_UNKNOWN
    assert refusal(issued["access_token"], **own)[0] in {
        FailureReason.CLAIM_MISSING,
        FailureReason.ISSUER_MISMATCH,
    }


BOUNDS: Any = [
    ({"issuer": None}, "issuer"),
    ({"audience": ""}, "audience"),
    ({"audience": "a" * 256}, "audience"),
    ({"algorithms": []}, "algorithms"),
    ({"algorithms": ["HS256"]}, "algorithms"),
    ({"algorithms": ["none"]}, "algorithms"),
    ({"header_type": "a b"}, "header_type"),
    ({"header_type": ""}, "header_type"),
    ({"account_claim": ""}, "account_claim"),
    ({"account_claim": "a b"}, "account_claim"),
    ({"tenant_claim": "a=b"}, "tenant_claim"),
    ({"required_claims": "acr"}, "required_claims"),
    ({"required_claims": "=high"}, "required_claims"),
    ({"required_claims": "a=1\na=2"}, "required_claims"),
    ({"required_claims": "a=" + "b" * 4096}, "required_claims"),
    ({"public_keys": ""}, "public_keys"),
    ({"public_keys": "hello"}, "public_keys"),
    ({"public_keys": EC.private_pem}, "public_keys"),
    ({"public_keys": json.dumps(RSA.jwk(use="enc"))}, "public_keys"),
    ({"public_keys": EC.pem}, "public_keys"),
    ({"public_keys": EC.pem, "key_id": "a b"}, "key_id"),
    ({"public_keys": EC.pem, "key_id": "k" * 129}, "key_id"),
    ({"keys_from": "elsewhere"}, "keys_from"),
    ({"keys_from": "address"}, "key_set_address"),
    ({"keys_from": "address", "key_set_address": "http://login.example/keys"}, "key_set_address"),
    ({"clock_skew": 301}, "clock_skew"),
    ({"replay": "sometimes"}, "replay"),
    ({"deadline": 11}, "deadline"),
]


@pytest.mark.parametrize(
    ("change", "name"), BOUNDS, ids=[f"{name} {number}" for number, (_, name) in enumerate(BOUNDS)]
)
def test_its_settings_have_bounds(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name) as refused:
        clean_settings(SignedJWT(), ENTERED | change)
    assert EC.private_pem[60:100] not in str(refused.value)


def test_its_settings_can_be_stored_and_are_accepted_again() -> None:
    stored, _ = clean_settings(
        SignedJWT(), ENTERED | {"algorithms": ["EdDSA", "RS256", "RS256"], "required_claims": "\n a=1 \n"}
    )
    assert stored["algorithms"] == ["RS256", "EdDSA"]
    assert stored["required_claims"] == "a=1"
    assert clean_settings(SignedJWT(), json.loads(json.dumps(stored)))[0] == stored


# By the address of a key set.


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


def by_address(server: HTTPSServer, deadline: float = LONG, **changes: Any) -> Mapping[str, Any]:
    address = {"keys_from": "address", "key_set_address": f"{server.url}/keys", **server.settings}
    cleaned = clean_settings(SignedJWT(), {"issuer": ISSUER, "audience": "ags", **address, **changes})[1]
    return {**cleaned, "deadline": deadline}


def ask_for(made: str, settings: Mapping[str, Any]) -> Identity:
    return SignedJWT().verify({"Token": made}, settings, RING)


def why(made: str, settings: Mapping[str, Any]) -> FailureReason | UpstreamFailure:
    with pytest.raises((VerificationFailed, UpstreamUnavailable)) as raised:
        ask_for(made, settings)
    return raised.value.reason if isinstance(raised.value, VerificationFailed) else raised.value.failure


def test_the_key_set_is_fetched_once_for_many_tokens(server: HTTPSServer) -> None:
    settings = by_address(server)
    for own in (RSA, EC, signer("EdDSA"), RSA):
        assert ask_for(own.token(claims()), settings).account_id == "account-1"
    assert len(server.asked) == 1


def test_prepared_it_is_there_before_the_first_token(server: HTTPSServer) -> None:
    settings = by_address(server)
    SignedJWT().prepare(settings, RING)
    wait_until(lambda: bool(server.asked), "it is not fetched")
    assert ask_for(EC.token(claims()), settings)
    assert len(server.asked) == 1
    assert SignedJWT().document_urls(settings, RING) == {"key set": f"{server.url}/keys"}


def test_a_key_that_has_just_been_published_is_found(server: HTTPSServer, clock: Clock) -> None:
    settings = by_address(server)
    ask_for(EC.token(claims()), settings)
    new = signer("ES256", "new")
    server.replies["/keys"] = as_json({"keys": [EC.jwk(), new.jwk()]})
    assert why(new.token(claims()), settings) is FailureReason.KEY_UNKNOWN, "within the gap nobody asks again"
    clock.ahead = documents.GAP + 1
    assert ask_for(new.token(claims()), settings).account_id == "account-1"
    assert len(server.asked) == 2


def test_a_key_that_has_vanished_proves_nothing_once_the_copy_is_too_old(
    server: HTTPSServer, clock: Clock
) -> None:
    settings = by_address(server)
    ask_for(EC.token(claims()), settings)
    server.replies["/keys"] = as_json({"keys": [RSA.jwk()]})
    assert ask_for(EC.token(claims()), settings)
    clock.ahead = documents.FRESH_FOR + 1
    assert why(EC.token(claims()), settings) is FailureReason.KEY_UNKNOWN


def test_a_flood_of_unknown_keys_asks_the_upstream_once(server: HTTPSServer, clock: Clock) -> None:
    settings = by_address(server)
    ask_for(EC.token(claims()), settings)
    clock.ahead = documents.GAP + 1
    for number in range(20):
        assert why(EC.token(claims(), kid=f"k{number}"), settings) is FailureReason.KEY_UNKNOWN
    assert len(server.asked) == 2


def test_another_service_of_the_same_tenant_has_its_own_keys(server: HTTPSServer) -> None:
    server.replies["/others"] = as_json({"keys": [signer("ES256", "other").jwk()]})
    others = by_address(server, key_set_address=f"{server.url}/others")
    assert ask_for(signer("ES256", "other").token(claims()), others)
    assert why(signer("ES256", "other").token(claims()), by_address(server)) is FailureReason.KEY_UNKNOWN
    assert why(EC.token(claims()), others) is FailureReason.KEY_UNKNOWN
    # The same address under other algorithms is another set.
    assert why(RSA.token(claims()), by_address(server, algorithms=["ES256"])) is FailureReason.KEY_UNKNOWN


FAILURES: Any = {
    "an error": (Reply(500), UpstreamFailure.RESPONSE_INVALID),
    "not found": (Reply(404), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(302, b"", {"Location": "/others"}), UpstreamFailure.RESPONSE_INVALID),
    "nonsense": (Reply(200, b"<html>"), UpstreamFailure.RESPONSE_INVALID),
    "no usable key": (as_json({"keys": [RSA.jwk(use="enc")]}), UpstreamFailure.RESPONSE_INVALID),
    "shared keys alone": (
        as_json({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ES256"}]}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "too much": (
        Reply(200, json.dumps({"keys": []}).encode() + b" " * documents.LIMIT),
        UpstreamFailure.RESPONSE_TOO_LARGE,
    ),
    "silence": (Reply(200, b"{}", wait=threading.Event()), UpstreamFailure.TIMEOUT),
}


@pytest.mark.parametrize(("reply", "outage"), FAILURES.values(), ids=FAILURES)
def test_without_a_key_set_it_is_left_open_and_says_why(
    server: HTTPSServer, reply: Reply, outage: UpstreamFailure
) -> None:
    server.replies["/keys"] = server.replies["/others"] = reply
    settings = by_address(server, deadline=hasty_if_slow(outage))
    assert why(EC.token(claims()), settings) is outage
    with pytest.raises(UpstreamUnavailable):
        SignedJWT().check(settings, RING)


@pytest.mark.parametrize(("reply", "outage"), FAILURES.values(), ids=FAILURES)
def test_while_the_upstream_fails_the_last_good_keys_serve(
    server: HTTPSServer, clock: Clock, reply: Reply, outage: UpstreamFailure
) -> None:
    settings = by_address(server)
    ask_for(EC.token(claims()), settings)
    server.replies["/keys"] = reply
    keys = _document(settings, RING.tenant)
    keys.source = replace(keys.source, deadline=hasty_if_slow(outage))
    clock.ahead = documents.FRESH_FOR + 1
    assert ask_for(EC.token(claims()), settings).account_id == "account-1"
    assert why(EC.token(claims(), kid="new"), settings) is FailureReason.KEY_UNKNOWN
    clock.ahead = documents.KEPT_FOR + 1
    assert why(EC.token(claims()), settings) is outage


@pytest.mark.parametrize("kid", ["QUJD+/8=", "https://login.example/keys/1", "!~"])
def test_a_key_id_may_be_what_others_make_of_it(server: HTTPSServer, kid: str) -> None:
    server.replies["/keys"] = as_json({"keys": [EC.jwk(kid=kid)]})
    assert ask_for(EC.token(claims(), kid=kid), by_address(server)).account_id == "account-1"


def test_check_says_what_is_there(server: HTTPSServer) -> None:
    server.replies["/keys"] = as_json({"keys": [EC.jwk(), RSA.jwk(use="enc")]})
    used, unused = SignedJWT().check(by_address(server), RING)
    assert used.message == f"The key set at {server.address} has 1 usable key: ES256 (ES256)."
    assert unused.message == "Not used: 1 key not for signatures."
    _, cleaned = clean_settings(SignedJWT(), ENTERED | {"public_keys": EC.pem, "key_id": "k1"})
    (entered,) = SignedJWT().check(cleaned, RING)
    assert entered.message == "What is entered has 1 usable key: k1 (ES256)."
    assert SignedJWT().document_urls(cleaned, RING) == {}
    SignedJWT().prepare(cleaned, RING)


# Through HTTP.


@pytest.fixture
def offered(nagra: HeadEnd, server: HTTPSServer) -> HeadEnd:
    settings = {"keys_from": "address", "key_set_address": f"{server.url}/keys", **server.settings}
    settings |= {"issuer": ISSUER, "audience": "ags", "tenant_claim": "tenant"}
    Service(
        tenant_id="nagra",
        name="JWT",
        strategy="signed_jwt",
        display_name="x",
        enabled=True,
        settings=settings,
    ).save()
    return nagra


def present(head_end: HeadEnd, made: str) -> Any:
    parameters = [{"name": "token", "value": made}]
    return head_end.post({"parameters": parameters}, x_auth_service_id="JWT")


def test_a_token_gets_a_session_token_once(offered: HeadEnd) -> None:
    made = EC.token(claims(tenant="nagra", jti="once"))
    assert present(offered, made).status_code == 200
    again = present(offered, made)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    assert present(offered, EC.token(claims(tenant="nagra"))).status_code == 200


def test_what_proves_nothing_is_answered_alike_and_what_is_proven_precisely(
    offered: HeadEnd, server: HTTPSServer
) -> None:
    good = claims(tenant="nagra")
    unproven = [
        EC.token(good, kid="unknown"),
        EC.token(good, alg="RS256"),
        EC.token(good, typ="at+jwt"),
        EC.token(good, crit=["exp"]),
        signer("ES256", "x").token(good, kid="ES256"),
        token({"alg": "HS256", "kid": "RS256"}, good, shared(RSA.pem.encode())),
        "garbage",
    ]
    answers = [present(offered, made) for made in unproven]
    told = [{**answer.json(), "correlationId": ""} for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert told == [told[0]] * len(told)
    assert told[0]["reason"] == "not_authenticated"
    other = present(offered, EC.token(claims(tenant="sunrise")))
    assert (other.status_code, other.json()["reason"]) == (403, "tenant_mismatch")
    issuer = present(offered, EC.token(claims(tenant="nagra", iss="x")))
    assert (issuer.status_code, issuer.json()["reason"]) == (401, "issuer_mismatch")


def test_an_upstream_that_is_away_is_a_503(offered: HeadEnd, server: HTTPSServer) -> None:
    server.replies["/keys"] = Reply(500)
    answer = present(offered, EC.token(claims(tenant="nagra")))
    assert answer.status_code == 503
    assert answer["Retry-After"]


def test_another_operator_cannot_use_the_token(offered: HeadEnd, sunrise: HeadEnd) -> None:
    made = EC.token(claims(tenant="nagra"))
    assert present(sunrise, made).status_code == 403
    assert present(offered, made).status_code == 200
