"""The provider `signed_jwt`: claims, headers, and sources of keys."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from ags.sessions.tokens.client_tokens import SignOn, token_response
from providers.contract import FailureReason, Identity, VerificationFailed
from providers.signed_jwt.strategy import SignedJWT
from tenants.models import Service
from tenants.services.settings import clean_settings
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.confused_tokens import ALGORITHMS, CONFUSED, EC, RSA
from tests.support.tokens import ENTERED, ISSUER, RING, make_claims
from tests.support.upstream.https import HTTPSServer, Reply
from tests.support.upstream.signer import ABSENT, sign_with_secret, signer, token


def verify(jws: str, **settings: Any) -> Identity:
    _, cleaned = clean_settings(SignedJWT(), ENTERED | settings)
    return SignedJWT().verify({"Token": jws}, cleaned, RING)


def get_reason(jws: str, **settings: Any) -> tuple[FailureReason, str | None]:
    with pytest.raises(VerificationFailed) as raised:
        verify(jws, **settings)
    return raised.value.reason, raised.value.claim


MATCHED = {"tenant_claim": "tenant", "required_claims": "acr=high\nok=true\nx=a=b"}
ALL_MATCHED = {"tenant": "nagra", "acr": "high", "ok": True, "x": "a=b"}

# claims that differ from a valid token, settings of the service
ACCEPTED: Any = {
    "a valid token": ({}, {}),
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
    "all required claims": (ALL_MATCHED, MATCHED),
    "a boolean as a string": ({**ALL_MATCHED, "ok": "true"}, MATCHED),
    "a tenant, not checked": ({"tenant": "sunrise"}, {}),
    "a jti": ({"jti": "j"}, {"replay": "required"}),
    "a jti of any type, off": ({"jti": 5}, {"replay": "off"}),
    "other claims": ({"typ": "x", "anything": {"at": ["all"]}}, {}),
}

REJECTED: Any = {
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
    "nbf in the future": ({"nbf": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "nbf"),
    "iat in the future": ({"iat": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "iat"),
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
    "another value of a required claim": (
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
def test_accepts(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    identity = verify(EC.token(make_claims(**changes)), **settings)
    sub = "account-1" if "account_claim" in settings else changes.get("sub", "account-1")
    assert identity.account_id == str(sub)
    assert identity.key_id is None


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("changes", "settings", "reason", "claim"), REJECTED.values(), ids=REJECTED)
def test_rejects(
    changes: dict[str, Any], settings: dict[str, Any], reason: FailureReason, claim: str
) -> None:
    assert get_reason(EC.token(make_claims(**changes)), **settings) == (reason, claim)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_accepts_each_algorithm_with_a_key_in_pem_certificate_and_jwk(algorithm: str) -> None:
    own = signer(algorithm)
    pem = {"key_id": algorithm, "algorithms": [algorithm]}
    jws = own.token(make_claims())
    assert verify(jws, **pem, public_keys=own.pem).account_id == "account-1"
    assert verify(jws, **pem, public_keys=own.certificate).account_id == "account-1"
    assert verify(jws, algorithms=[algorithm], public_keys=json.dumps(own.jwk())).account_id == "account-1"


def test_a_jti_is_stored_for_the_maximum_clock_skew() -> None:
    expires = int(time.time()) + 50
    identity = verify(EC.token(make_claims(jti="j", exp=expires)), clock_skew=0)
    assert (identity.jti, identity.replayable_until) == ("j", expires + 300)
    assert verify(EC.token(make_claims(jti="j")), replay="off").jti is None


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
    "with typ application/JWT": ({"typ": "application/JWT"}, {}),
    "an access token if required": ({"typ": "at+jwt"}, {"header_type": "at+jwt"}),
    "an access token with application/": ({"typ": "application/at+jwt"}, {"header_type": "at+jwt"}),
    "an access token in another case": ({"typ": "AT+JWT"}, {"header_type": "at+jwt"}),
    "a setting in another case": ({"typ": "at+jwt"}, {"header_type": "At+Jwt"}),
    **{f"the member {name}": ({name: value}, {}) for name, value in IGNORED.items()},
}
HEADERS_REJECTED: Any = {
    "an access token": ({"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "a logout token": ({"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "a JWT if access tokens are required": (
        {"typ": "JWT"},
        {"header_type": "at+jwt"},
        FailureReason.MALFORMED,
    ),
    "no typ if one is required": ({}, {"header_type": "at+jwt"}, FailureReason.MALFORMED),
    "typ a list": ({"typ": ["JWT"]}, {}, FailureReason.MALFORMED),
    "typ that is k only in lower case": ({"typ": "\u212a"}, {"header_type": "k"}, FailureReason.MALFORMED),
    "no kid": ({"kid": ABSENT}, {}, FailureReason.MALFORMED),
    **{
        f"the member {name}": ({name: value}, {}, FailureReason.HEADER_MEMBER_FORBIDDEN)
        for name, value in {"crit": ["exp"], "b64": True}.items()
    },
}


@pytest.mark.parametrize(("header", "settings"), HEADERS_ACCEPTED.values(), ids=HEADERS_ACCEPTED)
def test_accepts_the_header(header: dict[str, Any], settings: dict[str, Any]) -> None:
    assert verify(EC.token(make_claims(), **header), **settings).account_id == "account-1"


@pytest.mark.parametrize(("header", "settings", "reason"), HEADERS_REJECTED.values(), ids=HEADERS_REJECTED)
def test_rejects_the_header(header: dict[str, Any], settings: dict[str, Any], reason: FailureReason) -> None:
    assert get_reason(EC.token(make_claims(), **header), **settings) == (reason, None)


@pytest.mark.parametrize(("make", "reason"), CONFUSED.values(), ids=CONFUSED)
def test_confused_algorithms_and_keys_are_rejected(make: Any, reason: FailureReason) -> None:
    assert get_reason(make(make_claims()))[0] is reason


OPERATOR_TOKEN = {"typ": "GetSessionTokenAuthN", "OpfTenantId": "nagra", "OpfAccountId": "account-1"}

# claims, header, settings, reason
OTHER_PURPOSE: Any = {
    "an access token of the issuer": ({}, {"typ": "at+jwt"}, {}, FailureReason.MALFORMED),
    "an ID token if access tokens are required": (
        {"nonce": "n"},
        {},
        {"header_type": "at+jwt"},
        FailureReason.MALFORMED,
    ),
    "an ID token for another client": ({"aud": "television"}, {}, {}, FailureReason.AUDIENCE_MISMATCH),
    "a logout token": ({"events": {"http://logout": {}}}, {}, {}, FailureReason.TYPE_MISMATCH),
    "a logout token with logout+jwt": ({}, {"typ": "logout+jwt"}, {}, FailureReason.MALFORMED),
    "an OperatorAuthToken": ({**OPERATOR_TOKEN, "iss": ABSENT}, {}, {}, FailureReason.CLAIM_MISSING),
    "a key for encryption": (
        {},
        {},
        {"public_keys": json.dumps({"keys": [RSA.jwk(), EC.jwk(use="enc")]})},
        FailureReason.KEY_UNKNOWN,
    ),
    "an algorithm that is not allowed": ({}, {}, {"algorithms": ["RS256"]}, FailureReason.KEY_UNKNOWN),
}


@pytest.mark.parametrize(
    ("changes", "header", "settings", "reason"), OTHER_PURPOSE.values(), ids=OTHER_PURPOSE
)
def test_tokens_for_another_purpose_are_rejected(
    changes: dict[str, Any], header: dict[str, Any], settings: dict[str, Any], reason: FailureReason
) -> None:
    assert get_reason(EC.token(make_claims(**changes), **header), **settings)[0] is reason


def test_tokens_issued_by_ags_are_rejected_even_if_its_keys_are_trusted(nagra: HeadEnd) -> None:
    tenant = snapshot.get_tenant("nagra")
    assert tenant
    now = time.time()
    issued = token_response(tenant, SignOn("account-1", "c" * 32, "s" * 32, 1, now + 99, now + 999))
    own = {"public_keys": json.dumps({"keys": [dict(key) for key in tenant.jwks]})}
    own |= {"issuer": tenant.rules.issuer or ISSUER, "audience": tenant.rules.audience}
    assert get_reason(issued["access_token"])[0] is FailureReason.KEY_UNKNOWN
    assert get_reason(issued["refresh_token"])[0] is FailureReason.KEY_UNKNOWN
    assert get_reason(issued["refresh_token"], **own)[0] is FailureReason.KEY_UNKNOWN
    assert get_reason(issued["access_token"], **own)[0] in {
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
def test_invalid_settings_are_rejected(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name) as raised:
        clean_settings(SignedJWT(), ENTERED | change)
    assert EC.private_pem[60:100] not in str(raised.value)


def test_stored_settings_are_valid_again() -> None:
    stored, _ = clean_settings(
        SignedJWT(), ENTERED | {"algorithms": ["EdDSA", "RS256", "RS256"], "required_claims": "\n a=1 \n"}
    )
    assert stored["algorithms"] == ["RS256", "EdDSA"]
    assert stored["required_claims"] == "a=1"
    assert clean_settings(SignedJWT(), json.loads(json.dumps(stored)))[0] == stored


# End to end.


@pytest.fixture
def offered(nagra: HeadEnd, jwks_server: HTTPSServer) -> HeadEnd:
    settings = {"keys_from": "address", "key_set_address": f"{jwks_server.url}/keys", **jwks_server.settings}
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


def present(head_end: HeadEnd, jws: str) -> Any:
    parameters = [{"name": "token", "value": jws}]
    return head_end.post({"parameters": parameters}, x_auth_service_id="JWT")


def test_a_token_is_exchanged_for_a_session_token_once(offered: HeadEnd) -> None:
    jws = EC.token(make_claims(tenant="nagra", jti="once"))
    assert present(offered, jws).status_code == 200
    again = present(offered, jws)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    assert present(offered, EC.token(make_claims(tenant="nagra"))).status_code == 200


def test_details_are_returned_only_if_the_signature_is_valid(
    offered: HeadEnd, jwks_server: HTTPSServer
) -> None:
    valid = make_claims(tenant="nagra")
    unverified = [
        EC.token(valid, kid="unknown"),
        EC.token(valid, alg="RS256"),
        EC.token(valid, typ="at+jwt"),
        EC.token(valid, crit=["exp"]),
        signer("ES256", "x").token(valid, kid="ES256"),
        token({"alg": "HS256", "kid": "RS256"}, valid, sign_with_secret(RSA.pem.encode())),
        "garbage",
    ]
    answers = [present(offered, jws) for jws in unverified]
    bodies = [{**answer.json(), "correlationId": ""} for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert bodies == [bodies[0]] * len(bodies)
    assert bodies[0]["reason"] == "not_authenticated"
    other = present(offered, EC.token(make_claims(tenant="sunrise")))
    assert (other.status_code, other.json()["reason"]) == (403, "tenant_mismatch")
    issuer = present(offered, EC.token(make_claims(tenant="nagra", iss="x")))
    assert (issuer.status_code, issuer.json()["reason"]) == (401, "issuer_mismatch")


def test_an_unavailable_upstream_causes_a_503(offered: HeadEnd, jwks_server: HTTPSServer) -> None:
    jwks_server.replies["/keys"] = Reply(500)
    answer = present(offered, EC.token(make_claims(tenant="nagra")))
    assert answer.status_code == 503
    assert answer["Retry-After"]


def test_another_tenant_cannot_use_the_token(offered: HeadEnd, sunrise: HeadEnd) -> None:
    jws = EC.token(make_claims(tenant="nagra"))
    assert present(sunrise, jws).status_code == 403
    assert present(offered, jws).status_code == 200
