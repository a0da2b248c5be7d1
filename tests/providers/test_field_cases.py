"""Reports from the field (tests/cases), tested end to end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ags.sessions.models import SessionToken
from providers.jose import decode_base64url
from tenants.models import Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.paths import CASES
from tests.support.upstream.authority import Authority, authority
from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply, as_json
from tests.support.upstream.signer import Signer, base64url, signer

ISSUER = "https://idp.example"
RSA = signer("RS256", "k1")


def case(path: str) -> Any:
    return json.loads((CASES / path).read_text())


def claims(**changes: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": "ags", "sub": "a1", "exp": int(time.time()) + 300, **changes}


@pytest.fixture
def idp(nagra: HeadEnd) -> Iterator[HTTPSServer]:
    """An identity provider of nagra with one key; `serve` adds a service that uses it."""
    with HTTPSServer() as server:
        server.replies["/keys"] = as_json({"keys": [RSA.jwk()]})
        yield server


def serve(idp: HTTPSServer, strategy: str, **settings: Any) -> None:
    Service(
        tenant_id="nagra",
        name="Field",
        strategy=strategy,
        display_name="x",
        enabled=True,
        settings={**idp.settings, **settings},
    ).save()


def serve_signed_jwt(idp: HTTPSServer, **settings: Any) -> None:
    rules = {"key_set_address": f"{idp.url}/keys", "issuer": ISSUER, "audience": "ags"}
    serve(idp, "signed_jwt", **rules, **settings)


def sign_on(app: ClientApp, **parameters: str) -> tuple[int, str]:
    """Return the status, and the account or the reason."""
    pairs = [{"name": name, "value": value} for name, value in parameters.items()]
    body = {"parameters": pairs, "deviceInformation": {"deviceType": "Android"}}
    answer = app.call("/ags/signOn", body, x_auth_service_id="Field")
    return answer.status_code, answer.json()["accountId" if answer.status_code == 201 else "reason"]


def with_own_modulus(path: str) -> dict[str, Any]:
    """Return the JWK Set of the case, with the modulus of `RSA` in each key."""
    return {"keys": [{**jwk, "n": RSA.jwk()["n"]} for jwk in case(path)["keys"]]}


@pytest.mark.parametrize("file", ["jwks.json", "jwks-null.json"])
@pytest.mark.parametrize("keys_from", ["address", "entered"])
def test_01_null_and_empty_array_members_of_a_key_count_as_absent(
    idp: HTTPSServer, app: ClientApp, file: str, keys_from: str
) -> None:
    key_set = with_own_modulus(f"01-jwks-unset-members/{file}")
    idp.replies["/keys"] = as_json(key_set)
    serve_signed_jwt(idp, keys_from=keys_from, public_keys=json.dumps(key_set))
    assert sign_on(app, Token=RSA.token(claims())) == (201, "a1")


def short_coordinate() -> Signer:
    """Return a key whose x begins with a zero octet (1 of 256)."""
    for _ in range(10_000):
        key = ec.generate_private_key(ec.SECP256R1())
        if not key.public_key().public_numbers().x >> 248:
            return Signer("k1", "ES256", key)
    raise AssertionError("no such key")


def octets(jwk: dict[str, Any], member: str) -> bytes:
    return decode_base64url(jwk[member])


EC, SHORT = signer("ES256", "k1"), short_coordinate()
NUMBERS = {
    "n with a leading zero": (RSA, {"n": base64url(b"\0" + octets(RSA.jwk(), "n"))}),
    "e with a leading zero": (RSA, {"e": base64url(b"\0" + octets(RSA.jwk(), "e"))}),
    "a coordinate with a leading zero": (EC, {"x": base64url(b"\0" + octets(EC.jwk(), "x"))}),
    "a coordinate without its leading zero": (
        SHORT,
        {"x": base64url(octets(SHORT.jwk(), "x").lstrip(b"\0"))},
    ),
}


@pytest.mark.parametrize(("key", "members"), NUMBERS.values(), ids=NUMBERS)
def test_02_leading_zero_octets_of_a_number_are_ignored(
    idp: HTTPSServer, app: ClientApp, key: Signer, members: dict[str, str]
) -> None:
    idp.replies["/keys"] = as_json({"keys": [key.jwk(**members)]})
    serve_signed_jwt(idp)
    assert key.jwk() != key.jwk(**members)
    assert sign_on(app, Token=key.token(claims())) == (201, "a1")


def test_03_a_key_that_is_listed_twice_is_used(idp: HTTPSServer, app: ClientApp) -> None:
    idp.replies["/keys"] = as_json(with_own_modulus("03-jwks-same-key-twice/jwks.json"))
    serve_signed_jwt(idp)
    assert sign_on(app, Token=RSA.token(claims())) == (201, "a1")


def test_03_different_keys_with_the_same_kid_are_not_used(idp: HTTPSServer, app: ClientApp) -> None:
    idp.replies["/keys"] = as_json({"keys": [RSA.jwk(), signer("RS256", "other").jwk(kid="k1")]})
    serve_signed_jwt(idp)
    assert sign_on(app, Token=RSA.token(claims()))[0] == 503


# whether the server sends the intermediate certificate, trusted CA, status
INTERMEDIATES = {
    "the intermediate, which the server does not send": (
        False,
        lambda intermediate: intermediate.certificate,
        201,
    ),
    "the intermediate": (True, lambda intermediate: intermediate.certificate, 201),
    "the root": (True, lambda intermediate: authority().certificate, 201),
    "the root, without the intermediate": (False, lambda intermediate: authority().certificate, 503),
    "another intermediate of the root": (True, lambda intermediate: Authority(authority()).certificate, 503),
}


@pytest.mark.parametrize(("sends_itself", "trusted", "status"), INTERMEDIATES.values(), ids=INTERMEDIATES)
def test_an_intermediate_ca_can_be_trusted_without_its_issuer(
    app: ClientApp, sends_itself: bool, trusted: Callable[[Authority], str], status: int
) -> None:
    intermediate = Authority(authority(), sends_itself=sends_itself)
    with HTTPSServer(intermediate) as idp:
        idp.replies["/keys"] = as_json({"keys": [RSA.jwk()]})
        serve_signed_jwt(idp, ca_certificates=trusted(intermediate))
        assert sign_on(app, Token=RSA.token(claims()))[0] == status
        assert len(idp.requests) == (status == 201)


@pytest.mark.parametrize(
    "header", case("05-typ-in-other-case/headers.json"), ids=lambda header: header["typ"]
)
def test_05_typ_is_case_insensitive(idp: HTTPSServer, app: ClientApp, header: dict[str, str]) -> None:
    serve_signed_jwt(idp, header_type="at+jwt" if "at" in header["typ"] else "JWT")
    assert sign_on(app, Token=RSA.token(claims(), **header)) == (201, "a1")


BOM = "\ufeff"


def with_prefix(mark: str, reply: Reply | Callable[[ReceivedRequest], Reply]) -> Reply:
    assert isinstance(reply, Reply)
    return Reply(reply.status, mark.encode() + reply.body)


@pytest.mark.parametrize(("mark", "status"), [(BOM, 201), (BOM * 2, 503)], ids=["one", "two"])
def test_12_a_jwk_set_may_have_one_byte_order_mark(
    idp: HTTPSServer, app: ClientApp, mark: str, status: int
) -> None:
    idp.replies["/keys"] = with_prefix(mark, idp.replies["/keys"])
    serve_signed_jwt(idp)
    assert sign_on(app, Token=RSA.token(claims()))[0] == status


def test_12_a_discovery_document_may_have_a_byte_order_mark(idp: HTTPSServer, app: ClientApp) -> None:
    metadata = {"issuer": idp.url, "jwks_uri": f"{idp.url}/keys"}
    idp.replies["/.well-known/openid-configuration"] = with_prefix(BOM, as_json(metadata))
    serve(idp, "oidc_id_token", issuer=idp.url, client_id="ags", nonce="off")
    jws = RSA.token(claims(iss=idp.url, iat=int(time.time())))
    assert sign_on(app, IdToken=jws) == (201, "a1")


def test_12_a_login_response_may_have_a_byte_order_mark(idp: HTTPSServer, app: ClientApp) -> None:
    idp.replies["/login"] = Reply(200, (CASES / "12-upstream-json-with-bom/bom-login.json").read_bytes())
    serve(idp, "operator_login", address=f"{idp.url}/login", user="ags", secret="x")
    assert sign_on(app, Username="anna", Password="p") == (201, "a1")


def test_12_an_introspection_response_may_have_a_byte_order_mark(idp: HTTPSServer, app: ClientApp) -> None:
    idp.replies["/i"] = with_prefix(BOM, as_json({"active": True, "token_type": "Bearer", "sub": "a1"}))
    serve(idp, "token_introspection", address=f"{idp.url}/i", client_id="ags", client_secret="x")
    assert sign_on(app, AccessToken="t") == (201, "a1")


def test_12_a_request_body_must_not_have_a_byte_order_mark(nagra: HeadEnd) -> None:
    assert nagra.post(BOM + json.dumps({"parameters": []})).status_code == 400


HEADERS = case("04-token-header-not-critical/headers.json")


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str([*header][3:]))
def test_04_unknown_header_members_are_ignored_and_crit_is_rejected(
    idp: HTTPSServer, app: ClientApp, header: dict[str, Any]
) -> None:
    serve_signed_jwt(idp)
    expected = (401, "not_authenticated") if "crit" in header else (201, "a1")
    assert sign_on(app, Token=RSA.token(claims(), **header)) == expected
    assert {asked.path for asked in idp.requests} == {"/keys"}


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str([*header][3:]))
def test_04_unknown_header_members_of_an_operator_token_are_ignored(
    nagra: HeadEnd, header: dict[str, Any]
) -> None:
    members = {name: value for name, value in header.items() if name not in {"alg", "kid"}}
    answer = nagra.present(nagra.token(headers=members))
    assert answer.status_code == (401 if "crit" in header else 200)


ANSWERS = case("09-introspection-null-and-zero/answers.json")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        *[(answer, 201) for answer in ANSWERS[:5]],
        ({**ANSWERS[0], "exp": 0}, 201),
        *[(answer, 401) for answer in ANSWERS[5:]],
    ],
)
def test_09_introspection_accepts_null_members_a_zero_exp_and_a_scope_array(
    idp: HTTPSServer, app: ClientApp, answer: dict[str, Any], status: int
) -> None:
    idp.replies["/i"] = as_json(answer)
    rules = {"client_id": "ags", "client_secret": "x", "token_type": "if_present", "scope": "tv"}
    serve(idp, "token_introspection", address=f"{idp.url}/i", **rules)
    assert sign_on(app, AccessToken="t")[0] == status


@pytest.mark.parametrize("claim", case("15-numeric-account/claims.json"))
def test_15_the_account_claim_may_be_an_integer(idp: HTTPSServer, app: ClientApp, claim: str) -> None:
    serve_signed_jwt(idp, account_claim=claim)
    jws = RSA.token(claims(**case("15-numeric-account/claims.json")))
    assert sign_on(app, Token=jws) == (201, "4711")


def test_15_the_account_id_in_a_login_response_may_be_an_integer(idp: HTTPSServer, app: ClientApp) -> None:
    idp.replies["/login"] = as_json({"accounts": [{"accountId": 4711}]})
    serve(idp, "operator_login", address=f"{idp.url}/login", user="ags", secret="x")
    assert sign_on(app, Username="anna", Password="p") == (201, "4711")


def test_15_the_account_in_an_introspection_response_may_be_an_integer(
    idp: HTTPSServer, app: ClientApp
) -> None:
    idp.replies["/i"] = as_json({"active": True, "token_type": "Bearer", "sub": 4711})
    serve(idp, "token_introspection", address=f"{idp.url}/i", client_id="ags", client_secret="x")
    assert sign_on(app, AccessToken="t") == (201, "4711")


def test_15_the_account_in_an_operator_token_must_not_be_an_integer(nagra: HeadEnd) -> None:
    answer = nagra.present(nagra.token(OpfAccountId=4711))
    assert (answer.status_code, answer.json()["reason"]) == (401, "claim_invalid")


def test_16_an_exp_in_milliseconds_is_rejected_and_stores_no_session_token(
    idp: HTTPSServer, app: ClientApp
) -> None:
    serve_signed_jwt(idp)
    jws = RSA.token(claims(**case("16-exp-in-milliseconds/claims.json")))
    assert sign_on(app, Token=jws) == (401, "lifetime_too_long")
    assert not SessionToken.unscoped.exists()
