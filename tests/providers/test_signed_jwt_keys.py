"""The provider `signed_jwt` with keys from a URL."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from providers.contract import (
    FailureReason,
    Identity,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.signed_jwt.strategy import SignedJWT, _document
from providers.upstream import documents
from tenants.services.settings import clean_settings
from tests.support.clock import StoppedClock
from tests.support.confused_tokens import EC, RSA
from tests.support.tokens import ENTERED, ISSUER, RING, make_claims
from tests.support.upstream.deadlines import LONG, deadline_for
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import signer
from tests.support.waiting import wait_until


def address_settings(jwks_server: HTTPSServer, deadline: float = LONG, **changes: Any) -> Mapping[str, Any]:
    address = {"keys_from": "address", "key_set_address": f"{jwks_server.url}/keys", **jwks_server.settings}
    cleaned = clean_settings(SignedJWT(), {"issuer": ISSUER, "audience": "ags", **address, **changes})[1]
    return {**cleaned, "deadline": deadline}


def verify_with(jws: str, settings: Mapping[str, Any]) -> Identity:
    return SignedJWT().verify({"Token": jws}, settings, RING)


def get_failure(jws: str, settings: Mapping[str, Any]) -> FailureReason | UpstreamFailure:
    with pytest.raises((VerificationFailed, UpstreamUnavailable)) as raised:
        verify_with(jws, settings)
    error = raised.value
    assert isinstance(error, VerificationFailed | UpstreamUnavailable)
    return error.reason if isinstance(error, VerificationFailed) else error.failure


def test_the_jwk_set_is_fetched_once_for_many_tokens(jwks_server: HTTPSServer) -> None:
    settings = address_settings(jwks_server)
    for own in (RSA, EC, signer("EdDSA"), RSA):
        assert verify_with(own.token(make_claims()), settings).account_id == "account-1"
    assert len(jwks_server.requests) == 1


def test_prepare_fetches_the_jwk_set_before_the_first_token(jwks_server: HTTPSServer) -> None:
    settings = address_settings(jwks_server)
    SignedJWT().prepare(settings, RING)
    wait_until(lambda: bool(jwks_server.requests), "it is not fetched")
    assert verify_with(EC.token(make_claims()), settings)
    assert len(jwks_server.requests) == 1
    assert SignedJWT().document_urls(settings, RING) == {"JWK Set": f"{jwks_server.url}/keys"}


def test_a_newly_published_key_is_used(jwks_server: HTTPSServer, clock: StoppedClock) -> None:
    settings = address_settings(jwks_server)
    verify_with(EC.token(make_claims()), settings)
    new = signer("ES256", "new")
    jwks_server.replies["/keys"] = as_json({"keys": [EC.jwk(), new.jwk()]})
    assert get_failure(new.token(make_claims()), settings) is FailureReason.KEY_UNKNOWN, (
        "fetched again within the interval"
    )
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert verify_with(new.token(make_claims()), settings).account_id == "account-1"
    assert len(jwks_server.requests) == 2


def test_a_removed_key_is_rejected_after_the_copy_expires(
    jwks_server: HTTPSServer, clock: StoppedClock
) -> None:
    settings = address_settings(jwks_server)
    verify_with(EC.token(make_claims()), settings)
    jwks_server.replies["/keys"] = as_json({"keys": [RSA.jwk()]})
    assert verify_with(EC.token(make_claims()), settings)
    clock.ahead = documents.MAX_AGE + 1
    assert get_failure(EC.token(make_claims()), settings) is FailureReason.KEY_UNKNOWN


def test_many_unknown_kids_cause_one_fetch(jwks_server: HTTPSServer, clock: StoppedClock) -> None:
    settings = address_settings(jwks_server)
    verify_with(EC.token(make_claims()), settings)
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    for number in range(20):
        assert get_failure(EC.token(make_claims(), kid=f"k{number}"), settings) is FailureReason.KEY_UNKNOWN
    assert len(jwks_server.requests) == 2


def test_services_of_a_tenant_do_not_share_keys(jwks_server: HTTPSServer) -> None:
    jwks_server.replies["/others"] = as_json({"keys": [signer("ES256", "other").jwk()]})
    others = address_settings(jwks_server, key_set_address=f"{jwks_server.url}/others")
    assert verify_with(signer("ES256", "other").token(make_claims()), others)
    assert (
        get_failure(signer("ES256", "other").token(make_claims()), address_settings(jwks_server))
        is FailureReason.KEY_UNKNOWN
    )
    assert get_failure(EC.token(make_claims()), others) is FailureReason.KEY_UNKNOWN
    # The same URL with other algorithms is another document.
    assert (
        get_failure(RSA.token(make_claims()), address_settings(jwks_server, algorithms=["ES256"]))
        is FailureReason.KEY_UNKNOWN
    )


FAILURES: Any = {
    "an error": (Reply(500), UpstreamFailure.RESPONSE_INVALID),
    "not found": (Reply(404), UpstreamFailure.RESPONSE_INVALID),
    "a redirect": (Reply(302, b"", {"Location": "/others"}), UpstreamFailure.RESPONSE_INVALID),
    "an invalid document": (Reply(200, b"<html>"), UpstreamFailure.RESPONSE_INVALID),
    "no usable key": (as_json({"keys": [RSA.jwk(use="enc")]}), UpstreamFailure.RESPONSE_INVALID),
    "shared keys alone": (
        as_json({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ES256"}]}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "a large document": (
        Reply(200, json.dumps({"keys": []}).encode() + b" " * documents.LIMIT),
        UpstreamFailure.RESPONSE_TOO_LARGE,
    ),
    "no response": (Reply(200, b"{}", wait=threading.Event()), UpstreamFailure.TIMEOUT),
}


@pytest.mark.parametrize(("reply", "failure"), FAILURES.values(), ids=FAILURES)
def test_without_a_jwk_set_the_upstream_is_unavailable(
    jwks_server: HTTPSServer, reply: Reply, failure: UpstreamFailure
) -> None:
    jwks_server.replies["/keys"] = jwks_server.replies["/others"] = reply
    settings = address_settings(jwks_server, deadline=deadline_for(failure))
    assert get_failure(EC.token(make_claims()), settings) is failure
    with pytest.raises(UpstreamUnavailable):
        SignedJWT().check(settings, RING)


@pytest.mark.parametrize(("reply", "failure"), FAILURES.values(), ids=FAILURES)
def test_while_the_upstream_fails_the_last_keys_are_used(
    jwks_server: HTTPSServer, clock: StoppedClock, reply: Reply, failure: UpstreamFailure
) -> None:
    settings = address_settings(jwks_server)
    verify_with(EC.token(make_claims()), settings)
    jwks_server.replies["/keys"] = reply
    keys = _document(settings, RING.tenant)
    keys.source = replace(keys.source, deadline=deadline_for(failure))
    clock.ahead = documents.MAX_AGE + 1
    assert verify_with(EC.token(make_claims()), settings).account_id == "account-1"
    assert get_failure(EC.token(make_claims(), kid="new"), settings) is FailureReason.KEY_UNKNOWN
    clock.ahead = documents.MAX_STALE_AGE + 1
    assert get_failure(EC.token(make_claims()), settings) is failure


@pytest.mark.parametrize("kid", ["QUJD+/8=", "https://login.example/keys/1", "!~"])
def test_a_kid_may_contain_any_visible_ascii(jwks_server: HTTPSServer, kid: str) -> None:
    jwks_server.replies["/keys"] = as_json({"keys": [EC.jwk(kid=kid)]})
    assert (
        verify_with(EC.token(make_claims(), kid=kid), address_settings(jwks_server)).account_id == "account-1"
    )


def test_check_lists_the_keys(jwks_server: HTTPSServer) -> None:
    jwks_server.replies["/keys"] = as_json({"keys": [EC.jwk(), RSA.jwk(use="enc")]})
    used, unused = SignedJWT().check(address_settings(jwks_server), RING)
    assert used.message == f"The JWK Set at {jwks_server.address} has 1 usable key: ES256 (ES256)."
    assert unused.message == "Not used: 1 key not for signatures."
    _, cleaned = clean_settings(SignedJWT(), ENTERED | {"public_keys": EC.pem, "key_id": "k1"})
    (entered,) = SignedJWT().check(cleaned, RING)
    assert entered.message == "The setting public_keys has 1 usable key: k1 (ES256)."
    assert SignedJWT().document_urls(cleaned, RING) == {}
    SignedJWT().prepare(cleaned, RING)
