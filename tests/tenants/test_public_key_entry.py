"""Public keys are entered in the admin and in files; private and weak keys are refused, and nowhere shown."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.management import CommandError, call_command
from django.test import Client

from tenants.models import Key, Service
from tenants.secrets.key_material import public_key_fingerprint
from tests.support.change_form import submit_change
from tests.support.clients import SERVICE, HeadEnd
from tests.support.configuration_files import key, tenant
from tests.support.operators import SIGNED, add_public_key
from tests.support.signed_jwt import send_token
from tests.support.snapshot import get_tenant
from tests.support.staff import NEW_KEY_FORM, person
from tests.support.tokens import make_claims
from tests.support.upstream.signer import ALGORITHMS, Signer, signer

ADD = "/admin/tenants/key/add/"
EC = signer("ES256")
RSA = signer("RS256")


# What is refused

P384 = signer("ES256", "p384", curve=ec.SECP384R1)
WEAK = signer("RS256", "weak", bits=1024)
PRIVATE = "private or shared key"

REFUSED: dict[str, tuple[Signer, Callable[[Signer], str], str]] = {
    "a private key": (EC, lambda own: own.private_pem, PRIVATE),
    "a private key after the public one": (EC, lambda own: own.pem + own.private_pem, PRIVATE),
    "a private JWK": (EC, lambda own: json.dumps(own.private_jwk), PRIVATE),
    "a private JWK, malformed": (EC, lambda own: json.dumps(own.private_jwk)[:-1], PRIVATE),
    "a private JWK, printed by Python": (EC, lambda own: str(own.private_jwk), PRIVATE),
    "a private JWK, printed by JavaScript": (
        EC,
        lambda own: json.dumps(own.private_jwk).replace('"d"', "d"),
        PRIVATE,
    ),
    "a private JWK in another object": (EC, lambda own: json.dumps({"privateKey": own.private_jwk}), PRIVATE),
    "a private JWK in a set": (EC, lambda own: json.dumps({"keys": [own.private_jwk]}), PRIVATE),
    "a private part with another name": (
        EC,
        lambda own: json.dumps({"pem": "".join(own.private_pem.splitlines()[1:-1])}),
        "for another algorithm",
    ),
    "a shared JWK": (EC, lambda _: '{"kty": "oct", "k": "AAAA"}', PRIVATE),
    "a private key without its header": (
        EC,
        lambda own: "".join(own.private_pem.splitlines()[1:-1]),
        "is not a public key or certificate in PEM, or a JWK",
    ),
    "RSA with 1024 bits": (WEAK, lambda own: own.pem, "with an RSA modulus of fewer than 2048"),
    "RSA with 1024 bits as a JWK": (WEAK, lambda own: json.dumps(own.jwk()), "fewer than 2048"),
    "P-384": (P384, lambda own: own.pem, "on a curve other than P-256"),
    "RSA for ES256": (EC, lambda _: RSA.pem, "for another algorithm than ES256"),
    "a JWK of RSA for ES256": (
        EC,
        lambda _: json.dumps(RSA.jwk(alg="ES256", kid="ES256")),
        "for another algorithm",
    ),
    "a JWK for PS256": (RSA, lambda own: json.dumps(own.jwk(alg="PS256")), "for another algorithm"),
    "a JWK with another kid": (EC, lambda own: json.dumps(own.jwk(kid="x")), "with another kid"),
    "a JWK for encryption": (EC, lambda own: json.dumps(own.jwk(use="enc")), "not for signatures"),
    "a JWK with a duplicate member": (
        EC,
        lambda own: json.dumps(own.jwk())[:-1] + ', "kid": "ES256"}',
        "is not valid JSON: it has a duplicate member",
    ),
    "a JWK Set": (EC, lambda own: json.dumps({"keys": [own.jwk()]}), "is a JWK Set"),
    "two keys": (EC, lambda own: own.pem * 2, "is not a public key"),
    "a malformed key": (EC, lambda own: own.pem.replace("M", "A", 1), "is malformed"),
    "almost a megabyte": (EC, lambda own: own.pem + "x" * 900_000, "32,768 characters"),
    "nothing": (EC, lambda _: "", ""),
}


@pytest.fixture(params=list(REFUSED.values()), ids=list(REFUSED))
def refused(request: pytest.FixtureRequest) -> tuple[Signer, str, str]:
    own, make, message = request.param
    return own, make(own), message


def test_the_form_refuses(
    admin_client: Client,
    nagra: HeadEnd,
    refused: tuple[Signer, str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, text, message = refused
    caplog.set_level(logging.DEBUG)
    page = admin_client.post(ADD, form(own) | {"entered_public_key": text})
    assert page.status_code == 200
    errors = page.context["adminform"].form.errors
    assert list(errors) == ["entered_public_key"]
    assert message.partition("is ")[2] in errors.as_text() or "at most 32768" in errors.as_text()
    assert Key.unscoped.count() == 1
    body = "".join(own.private_pem.splitlines()[1:-1])
    if own.private_jwk["d"] in text or body in text or own.private_pem in text or "oct" in text:
        places = [page.content.decode(), *(str(vars(record)) for record in caplog.records)]
        for line in filter(None, text.replace('"', "\n").splitlines()):
            assert len(line) < 30 or not any(line in place for place in places)


@pytest.mark.django_db
def test_apply_refuses(apply: Callable[..., list[str]], refused: tuple[Signer, str, str]) -> None:
    own, text, message = refused
    with pytest.raises(CommandError) as raised:
        apply(tenant(keys=[public(own, public_key=text)]))
    error = str(raised.value)
    assert error.startswith("tenants[0].keys[0].public_key: ")
    assert message in error
    assert len(error) < 200
    assert not Key.unscoped.exists()


# The pages


def form(own: Signer, **changes: str) -> dict[str, str]:
    names = {"kid": own.kid, "algorithm": own.algorithm, "source": "public", "entered_public_key": own.pem}
    return NEW_KEY_FORM | names | changes


def test_a_public_key_is_added_and_shown(admin_client: Client, nagra: HeadEnd, signed_jwt: Service) -> None:
    assert admin_client.post(ADD, form(EC, state="staged")).status_code == 302
    assert send_token(nagra, EC.token(make_claims())).status_code == 401
    stored = Key.unscoped.get(kid=EC.kid)
    address = f"/admin/tenants/key/{stored.pk}/change/"
    submit_change(admin_client, address, {"state": "active"})
    assert send_token(nagra, EC.token(make_claims())).status_code == 200
    for client in (admin_client, person("Support", "nagra"), person("Auditor", "nagra")):
        page = client.get(address)
        if page.status_code == 200:
            assert EC.pem.splitlines()[1] in page.content.decode()
            assert public_key_fingerprint(EC.pem) in page.content.decode()
    shared = Key.unscoped.get(kid=nagra.kid)
    assert "Fingerprint" not in admin_client.get(f"/admin/tenants/key/{shared.pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"entered_public_key": ""}, {"entered_public_key"}),
        ({"algorithm": "HS256"}, {"algorithm"}),
        ({"source": "generate"}, {"entered_public_key", "algorithm"}),
        ({"source": "generate", "entered_public_key": ""}, {"algorithm"}),
        (
            {"source": "enter", "secret": "x" * 32, "encoding": "text", "entered_public_key": ""},
            {"algorithm"},
        ),
        ({"secret": "abc" * 32, "encoding": "text"}, {"secret"}),
        ({"kid": ""}, {"kid"}),
        ({"kid": "not a kid"}, {"kid"}),
    ],
)
def test_the_fields_must_agree(
    admin_client: Client, nagra: HeadEnd, change: dict[str, str], fields: set[str]
) -> None:
    page = admin_client.post(ADD, form(EC, **change))
    assert set(page.context["adminform"].form.errors) == fields
    assert "abcabc" not in page.content.decode()


def test_revoking_names_the_public_keys_and_the_services_that_use_them(
    admin_client: Client, nagra: HeadEnd, signed_jwt: Service
) -> None:
    address = f"/admin/tenants/key/{add_public_key(EC).pk}/revoke/"
    text = admin_client.get(address).content.decode()
    assert "Other public keys of nagra in force: none." in text
    assert "No other public key of nagra is in force: no subscriber can sign on through Signed JWT." in text
    add_public_key(RSA)
    text = admin_client.get(address).content.decode()
    assert "Other public keys of nagra in force: RS256 (never used)." in text
    assert "No other public key" not in text
    Key.unscoped.filter(kid=RSA.kid).delete()
    signed_jwt.settings |= {
        "keys_from": "entered",
        "public_keys": EC.pem,
        "key_id": "k",
        "algorithms": ["ES256"],
    }
    signed_jwt.save()
    assert "No other public key" not in admin_client.get(address).content.decode()


def test_checkservice_lists_the_keys(nagra: HeadEnd, signed_jwt: Service) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("checkservice", "nagra", SIGNED, stdout=out)
    assert "BAD  The tenant has no public key in force" in out.getvalue()
    add_public_key(EC)
    add_public_key(RSA, state="staged")
    out = io.StringIO()
    call_command("checkservice", "nagra", SIGNED, stdout=out)
    assert "ok   Keys in force: ES256.\n" in out.getvalue()
    out = io.StringIO()
    call_command("checkservice", "nagra", SERVICE, stdout=out)
    assert f"ok   Keys in force: {nagra.kid}.\n" in out.getvalue()


def test_an_explanation_names_the_state_of_the_key(
    nagra: HeadEnd, signed_jwt: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_public_key(EC, state="revoked")
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(EC.token(make_claims())))
    with pytest.raises(SystemExit):
        call_command("explain", "--token", "-", "--tenant", "nagra", "--service", SIGNED, stdout=out)
    assert "key_not_in_force" in out.getvalue()
    assert "ES256" in out.getvalue()


# Configuration files


def public(own: Signer, **changes: Any) -> dict[str, Any]:
    names = {"kid": own.kid, "algorithm": own.algorithm, "public_key": own.pem, "secret": None}
    return key(**(names | changes))


def export() -> str:
    out = io.StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


@pytest.mark.django_db
def test_apply_and_export(apply: Callable[..., list[str]]) -> None:
    document = tenant(keys=[public(signer(name)) for name in ALGORITHMS] + [key()])
    apply(document)
    assert apply(document) == ["nothing to do"]
    text = export()
    assert "    public_key: |\n      -----BEGIN PUBLIC KEY-----\n" in text
    assert text.count("secret:") == 1
    assert apply(text) == ["nothing to do"]
    before = {stored.kid: stored.immutable_values() for stored in Key.unscoped.exclude(kid="key-1")}
    Key.unscoped.exclude(kid="key-1").delete()
    assert apply(text) == [f"+ key nagra/{name}" for name in sorted(ALGORITHMS)]
    assert {each.kid: each.immutable_values() for each in Key.unscoped.exclude(kid="key-1")} == before
    jwk = json.dumps(EC.jwk())
    assert apply(tenant(keys=[public(EC, public_key=jwk, state="retiring")])) == [
        "~ key nagra/ES256: state active -> retiring"
    ]
    assert get_tenant().services[SERVICE].keys.kids_in_force(0) == ["key-1"]


APPLY_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no public key": (public(EC, public_key=None), "public_key: missing"),
    "a secret": (
        public(EC, public_key=None, secret={"text": "x" * 32}),
        "secret: not accepted: ES256 needs the member public_key instead",
    ),
    "both": (public(EC, secret={"text": "x" * 32}), "secret: not accepted"),
    "a public key for HS256": (
        public(EC, algorithm="HS256"),
        "public_key: not accepted: HS256 needs the member secret instead",
    ),
    "no algorithm": (public(EC, algorithm=None), "public_key: not accepted: HS256"),
    "another type": (public(EC, public_key=5), "public_key: must be a string"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("entry", "message"), APPLY_ERRORS.values(), ids=APPLY_ERRORS)
def test_errors_of_apply(apply: Callable[..., list[str]], entry: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError) as raised:
        apply(tenant(keys=[entry]))
    assert str(raised.value).startswith(f"tenants[0].keys[0].{message}")


def test_apply_does_not_replace_a_public_key(apply: Callable[..., list[str]], nagra: HeadEnd) -> None:
    add_public_key(EC)
    other = signer("ES256", "x").pem
    with pytest.raises(CommandError, match="public_key: differs from the stored public key"):
        apply(tenant(keys=[public(EC, public_key=other)]))
    with pytest.raises(CommandError, match="secret: not accepted: ES256 needs the member public_key"):
        apply(tenant(keys=[key(kid=EC.kid)]))
    with pytest.raises(CommandError, match="algorithm: cannot be changed: this key uses ES256"):
        apply(tenant(keys=[public(EC, algorithm="RS256")]))
