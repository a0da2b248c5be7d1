"""The discovery document and the JWK Set of the provider `oidc_id_token`."""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from providers.contract import FailureReason, KeyRing, UpstreamFailure, UpstreamUnavailable
from providers.oidc_id_token import strategy
from providers.oidc_id_token.discovery import discovery_document
from providers.oidc_id_token.strategy import OIDCIDToken
from providers.upstream import documents
from tests.support.clock import StoppedClock
from tests.support.confused_tokens import EC, KEY_SET, RSA
from tests.support.oidc_id_token import (
    RING,
    WELL_KNOWN,
    discovery,
    get_failure,
    get_settings,
    make_claims,
    verify,
)
from tests.support.upstream.authority import untrusted_authority
from tests.support.upstream.deadlines import LONG, SHORT, deadline_for
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import ABSENT, signer
from tests.support.waiting import wait_until

# The two documents.


def test_both_documents_are_fetched_once_for_many_tokens(oidc_server: HTTPSServer) -> None:
    settings = get_settings(oidc_server)
    for own in (RSA, EC, RSA):
        assert verify(own.token(make_claims(oidc_server)), settings)
    assert sorted(asked.path for asked in oidc_server.requests) == [WELL_KNOWN, "/keys"]


def test_prepare_fetches_both_documents_before_the_first_token(oidc_server: HTTPSServer) -> None:
    settings = get_settings(oidc_server)
    OIDCIDToken().prepare(settings, RING)
    wait_until(lambda: len(oidc_server.requests) == 2, "they are not fetched")
    assert verify(RSA.token(make_claims(oidc_server)), settings)
    assert len(oidc_server.requests) == 2
    assert OIDCIDToken().document_urls(settings, RING) == {
        "discovery document": f"{oidc_server.url}{WELL_KNOWN}",
        "JWK Set": f"{oidc_server.url}/keys",
    }


def test_document_urls_lacks_the_jwk_set_until_discovery_is_fetched(oidc_server: HTTPSServer) -> None:
    oidc_server.replies[WELL_KNOWN] = replace(discovery(oidc_server), wait=NEVER)
    known = OIDCIDToken().document_urls(get_settings(oidc_server), RING)
    assert known == {"discovery document": f"{oidc_server.url}{WELL_KNOWN}"}


def test_the_discovery_url_of_an_issuer_with_a_path_or_a_trailing_slash(oidc_server: HTTPSServer) -> None:
    for issuer in (f"{oidc_server.url}/", f"{oidc_server.url}/realms/tv"):
        path = issuer.removeprefix(oidc_server.url).rstrip("/") + WELL_KNOWN
        oidc_server.replies[path] = discovery(oidc_server, issuer=issuer)
        assert verify(
            RSA.token(make_claims(oidc_server, iss=issuer)), get_settings(oidc_server, issuer=issuer)
        )


def test_the_jwk_set_may_be_on_another_host(oidc_server: HTTPSServer) -> None:
    with HTTPSServer() as other:
        other.replies["/keys"] = as_json({"keys": [signer("ES256", "other").jwk()]})
        oidc_server.replies[WELL_KNOWN] = discovery(oidc_server, jwks_uri=f"{other.url}/keys")
        assert verify(signer("ES256", "other").token(make_claims(oidc_server)), get_settings(oidc_server))


def test_jwks_uri_must_not_be_a_private_address(oidc_server: HTTPSServer, settings: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network("127.0.0.1/32")]
    inside = oidc_server.url.replace("127.0.0.1", "127.0.0.2")
    oidc_server.replies[WELL_KNOWN] = discovery(oidc_server, jwks_uri=f"{inside}/keys")
    assert (
        get_failure(RSA.token(make_claims(oidc_server)), get_settings(oidc_server))[0]
        is UpstreamFailure.ADDRESS_FORBIDDEN
    )


def test_keys_are_rotated_and_removed(oidc_server: HTTPSServer, clock: StoppedClock) -> None:
    settings, new = get_settings(oidc_server), signer("ES256", "new")
    verify(RSA.token(make_claims(oidc_server)), settings)
    oidc_server.replies["/keys"] = as_json({"keys": [new.jwk()]})
    assert get_failure(new.token(make_claims(oidc_server)), settings)[0] is FailureReason.KEY_UNKNOWN, (
        "fetched again within the interval"
    )
    clock.ahead = documents.MIN_FETCH_INTERVAL + 1
    assert verify(new.token(make_claims(oidc_server)), settings)
    assert get_failure(RSA.token(make_claims(oidc_server)), settings)[0] is FailureReason.KEY_UNKNOWN


def test_a_new_jwks_uri_is_used(oidc_server: HTTPSServer, clock: StoppedClock) -> None:
    settings, new = get_settings(oidc_server), signer("ES256", "new")
    verify(RSA.token(make_claims(oidc_server)), settings)
    oidc_server.replies["/moved"] = as_json({"keys": [new.jwk()]})
    oidc_server.replies[WELL_KNOWN] = discovery(oidc_server, jwks_uri=f"{oidc_server.url}/moved")
    clock.ahead = documents.MAX_AGE + 1
    assert verify(new.token(make_claims(oidc_server)), settings)


def test_tenants_do_not_share_documents(oidc_server: HTTPSServer) -> None:
    settings = get_settings(oidc_server)
    verify(RSA.token(make_claims(oidc_server)), settings)
    OIDCIDToken().verify(
        {"IdToken": RSA.token(make_claims(oidc_server)), "Nonce": "n"}, settings, KeyRing("sunrise", {})
    )
    assert len(oidc_server.requests) == 4


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
    oidc_server: HTTPSServer, document: Any, key_set: Reply | None, failure: UpstreamFailure
) -> None:
    oidc_server.replies[WELL_KNOWN] = document(oidc_server)
    oidc_server.replies["/keys"] = key_set or as_json(KEY_SET)
    settings = get_settings(oidc_server, deadline=deadline_for(failure))
    assert get_failure(RSA.token(make_claims(oidc_server)), settings)[0] is failure
    with pytest.raises(UpstreamUnavailable):
        list(OIDCIDToken().check(settings, RING))


def test_both_documents_share_one_deadline(oidc_server: HTTPSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(strategy, "time", clock)

    def spend_deadline(_: Any) -> Reply:
        clock.ahead = LONG
        return discovery(oidc_server)

    oidc_server.replies[WELL_KNOWN] = spend_deadline
    # A second full deadline would be enough to receive it.
    oidc_server.replies["/keys"] = replace(as_json(KEY_SET), wait=NEVER)
    assert (
        get_failure(RSA.token(make_claims(oidc_server)), get_settings(oidc_server))[0]
        is UpstreamFailure.TIMEOUT
    )
    paths = [WELL_KNOWN, "/keys"]
    wait_until(lambda: [asked.path for asked in oidc_server.requests] == paths, "the JWK Set is not fetched")


@pytest.mark.parametrize(("document", "key_set", "failure"), FAILURES.values(), ids=FAILURES)
def test_while_either_fails_the_last_copies_are_used(
    oidc_server: HTTPSServer,
    clock: StoppedClock,
    document: Any,
    key_set: Reply | None,
    failure: UpstreamFailure,
) -> None:
    settings = get_settings(oidc_server)
    verify(RSA.token(make_claims(oidc_server)), settings)
    oidc_server.replies[WELL_KNOWN] = document(oidc_server)
    oidc_server.replies["/keys"] = key_set or as_json(KEY_SET)
    if failure is UpstreamFailure.TIMEOUT:
        first = discovery_document(settings, RING.tenant)
        for each in (first, first.current()):
            each.source = replace(each.source, deadline=SHORT)
    clock.ahead = documents.MAX_AGE + 1
    assert verify(RSA.token(make_claims(oidc_server)), settings)
    clock.ahead = documents.MAX_STALE_AGE + 1
    assert get_failure(RSA.token(make_claims(oidc_server)), settings)[0] is failure


def test_an_untrusted_certificate_is_rejected() -> None:
    with HTTPSServer(untrusted_authority()) as oidc_server:
        oidc_server.replies[WELL_KNOWN] = discovery(oidc_server)
        assert (
            get_failure(RSA.token(make_claims(oidc_server)), get_settings(oidc_server))[0]
            is UpstreamFailure.CERTIFICATE_UNTRUSTED
        )


def test_check_reports_both_documents(oidc_server: HTTPSServer) -> None:
    found = [result.message for result in OIDCIDToken().check(get_settings(oidc_server), RING)]
    assert found == [
        f"The discovery document of {oidc_server.url} is valid.",
        f"The JWK Set at {oidc_server.address} has 4 usable keys: "
        "RS256 (RS256), ES256 (ES256), EdDSA (EdDSA), PS256 (PS256).",
    ]
