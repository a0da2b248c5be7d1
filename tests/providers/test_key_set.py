"""Public keys of an operator: which are relied on, from a key set and as staff enter them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.exceptions import ValidationError

from providers.contract import (
    FailureReason,
    TrustedKey,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.jose import verify_jws
from providers.jwks import JWKSet, JWKSetReader, PublicKeysField, Unusable, entered
from tests.upstream.signer import ABSENT, ALGORITHMS, b64, signer, token

ALL = ("RS256", "ES256", "EdDSA")
RSA, EC, OKP = signer("RS256"), signer("ES256"), signer("EdDSA")
NOW = 1_800_000_000.0


def read(keys: Any, algorithms: tuple[str, ...] = ALL) -> JWKSet:
    body = keys if isinstance(keys, bytes) else json.dumps({"keys": keys}).encode()
    return JWKSetReader("nagra", algorithms)(body)


def why(keys: Any, algorithms: tuple[str, ...] = ALL) -> str:
    with pytest.raises(UpstreamUnavailable) as raised:
        read(keys, algorithms)
    assert raised.value.failure is UpstreamFailure.RESPONSE_INVALID
    return str(raised.value)


# y of the points of order 4, 1, 8, 8 and 2, as libsodium lists them; then those of 4 and 1 plus 2^255 - 19.
LOW_ORDER_POINTS = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def rsa_times(factor: int) -> dict[str, Any]:
    """A key whose modulus has that factor beside large ones."""
    modulus = RSA.private.public_key().public_numbers().n * factor
    return RSA.jwk(n=b64(modulus.to_bytes((modulus.bit_length() + 7) // 8)))


def ed25519(text: str, *, sign: bool = False) -> dict[str, Any]:
    raw = bytearray.fromhex(text)
    raw[31] |= sign << 7
    return OKP.jwk(x=b64(bytes(raw)))


# key, algorithms of the service, what it is then for
USED = {
    "RSA": (RSA.jwk(), ALL, "RS256"),
    "RSA for PS256": (RSA.jwk(alg="PS256"), ("RS256", "PS256"), "PS256"),
    "RSA that does not say, where RS256 is allowed": (RSA.jwk(alg=ABSENT), ALL, "RS256"),
    "RSA that does not say, where PS256 is allowed": (RSA.jwk(alg=ABSENT), ("PS256", "ES256"), "PS256"),
    "RSA of 3072 bits": (signer("RS256", bits=3072).jwk(), ALL, "RS256"),
    "RSA with a factor of 4099": (rsa_times(4099), ALL, "RS256"),
    "P-256": (EC.jwk(), ALL, "ES256"),
    "P-256 that does not say": (EC.jwk(alg=ABSENT, use=ABSENT), ALL, "ES256"),
    "Ed25519": (OKP.jwk(), ALL, "EdDSA"),
    "Ed25519 that does not say": (OKP.jwk(alg=ABSENT), ALL, "EdDSA"),
    "for verifying": (EC.jwk(use=ABSENT, key_ops=["verify"]), ALL, "ES256"),
    "with what is not looked at": (
        EC.jwk(x5c=["MIIB"], x5t="a", x5u="https://e.example", exp=1),
        ALL,
        "ES256",
    ),
}


NO_KID = "without a kid of"
SECRET = "private or shared"
PURPOSE = "not for signatures"
NOT_ALLOWED = "for none of the algorithms"
MALFORMED = "with malformed members"
FACTOR = "of RSA with a modulus that is even or has another factor below 4096"
LOW_ORDER = "of Ed25519 with a point of low order"
NO_POINT = "of Ed25519 with octets that encode no point"
OTHER_KIND = "of another kind than"
UNUSED = {
    "a number": (5, "not written as a JSON object"),
    "null": (None, "not written as a JSON object"),
    "without kid": (EC.jwk(kid=ABSENT), NO_KID),
    "kid a number": (EC.jwk(kid=5), NO_KID),
    "kid empty": (EC.jwk(kid=""), NO_KID),
    "kid of 129 characters": (EC.jwk(kid="k" * 129), NO_KID),
    "kid with a line break": (EC.jwk(kid="k\n"), NO_KID),
    "private EC": (EC.private_jwk, SECRET),
    "private RSA": (RSA.private_jwk, SECRET),
    "private Ed25519": (OKP.private_jwk, SECRET),
    "a private member empty": (EC.jwk(d=""), SECRET),
    "a private member of one null": (RSA.jwk(oth=[None]), SECRET),
    "a private member of zero": (RSA.jwk(d=0), SECRET),
    "kty null": (EC.jwk(kty=None), OTHER_KIND),
    "kid null": (EC.jwk(kid=None), NO_KID),
    "x null": (EC.jwk(x=None), MALFORMED),
    "shared, its secret null": ({"kty": "oct", "k": None, "kid": "k"}, SECRET),
    "shared": ({"kty": "oct", "k": b64(bytes(32)), "kid": "k", "alg": "HS256"}, SECRET),
    "shared without its secret": ({"kty": "oct", "kid": "k"}, SECRET),
    "for encryption": (RSA.jwk(use="enc"), PURPOSE),
    "use empty": (RSA.jwk(use=""), PURPOSE),
    "use false": (RSA.jwk(use=False), PURPOSE),
    "key_ops an object": (RSA.jwk(key_ops={}), PURPOSE),
    "for signing alone": (RSA.jwk(key_ops=["sign"]), PURPOSE),
    "key_ops a string": (RSA.jwk(key_ops="verify"), PURPOSE),
    "an algorithm that is not allowed": (RSA.jwk(alg="PS256"), NOT_ALLOWED),
    "an algorithm of another kind": (EC.jwk(alg="RS256"), NOT_ALLOWED),
    "HS256 on a public key": (RSA.jwk(alg="HS256"), NOT_ALLOWED),
    "alg none": (RSA.jwk(alg="none"), NOT_ALLOWED),
    "alg a list": (RSA.jwk(alg=["RS256"]), NOT_ALLOWED),
    "RSA of 1024 bits": (signer("RS256", bits=1024).jwk(), "of RSA with other than 2048"),
    "RSA of 2047 bits": (RSA.jwk(n=b64(b"\x7f" + b"\xff" * 255)), "of RSA with other than 2048"),
    "RSA of 8200 bits": (RSA.jwk(n=b64(b"\xff" * 1025)), MALFORMED),
    "RSA of a million bits": (RSA.jwk(n=b64(b"\xff" * 131072)), MALFORMED),
    "e of 1": (RSA.jwk(e="AQ"), MALFORMED),
    "e even": (RSA.jwk(e="BA"), MALFORMED),
    "e of zero": (RSA.jwk(e="AA"), MALFORMED),
    "e of 33 bits": (RSA.jwk(e=b64(b"\x01\x00\x00\x00\x01")), "of RSA with an exponent"),
    **{f"n with the factor {factor}": (rsa_times(factor), FACTOR) for factor in (2, 3, 751, 4093)},
    "n of zeros": (RSA.jwk(n=b64(bytes(256))), MALFORMED),
    "n empty": (RSA.jwk(n=""), MALFORMED),
    "n a number": (RSA.jwk(n=5), MALFORMED),
    "n missing": (RSA.jwk(n=ABSENT), MALFORMED),
    "n in plain base64": (RSA.jwk(n=RSA.jwk()["n"][:-4] + "++//"), MALFORMED),
    "n padded": (RSA.jwk(n=RSA.jwk()["n"] + "=="), MALFORMED),
    "n in letters of another script": (RSA.jwk(n="\u0430" * 300), MALFORMED),
    "another curve": (signer("ES256", curve=ec.SECP384R1).jwk(), OTHER_KIND),
    "a point that is not on the curve": (EC.jwk(x=b64(bytes(31) + b"\x05")), MALFORMED),
    "the point at infinity": (EC.jwk(x=b64(bytes(32)), y=b64(bytes(32))), MALFORMED),
    "a coordinate of 33 octets": (EC.jwk(x=b64(b"\1" + bytes(32))), MALFORMED),
    "a coordinate of 48 octets": (EC.jwk(x=b64(b"\1" * 48)), MALFORMED),
    "an empty coordinate": (EC.jwk(x=""), MALFORMED),
    "a coordinate too short": (EC.jwk(x=b64(bytes(31))), MALFORMED),
    **{
        f"a point of low order, {text[:4]} and sign {sign}": (ed25519(text, sign=sign), LOW_ORDER)
        for text in LOW_ORDER_POINTS
        for sign in (False, True)
    },
    "Ed25519 that is not on the curve": (ed25519(f"02{0:062x}"), NO_POINT),
    "Ed25519 that is not in its one encoding": (ed25519(f"f0{'ff' * 30}7f"), NO_POINT),
    "Ed25519 of 31 bytes": (OKP.jwk(x=b64(bytes(31))), MALFORMED),
    "Ed448": (OKP.jwk(crv="Ed448", x=b64(bytes(57))), OTHER_KIND),
    "X25519": (OKP.jwk(crv="X25519"), OTHER_KIND),
    "kty in lower case": (EC.jwk(kty="ec"), OTHER_KIND),
    "kty a list": (EC.jwk(kty=["EC"]), OTHER_KIND),
    "kty missing": (EC.jwk(kty=ABSENT), OTHER_KIND),
}


@pytest.mark.parametrize(("jwk", "algorithms", "algorithm"), USED.values(), ids=USED)
def test_it_is_used(jwk: Any, algorithms: tuple[str, ...], algorithm: str) -> None:
    (key,) = read([jwk], algorithms).ring.keys.values()
    assert (key.kid, key.algorithm, key.id) == (jwk["kid"], algorithm, None)


@pytest.mark.parametrize(("jwk", "reason"), UNUSED.values(), ids=UNUSED)
def test_it_is_not_used_and_the_others_are(jwk: Any, reason: str) -> None:
    good = signer("ES256", "good").jwk()
    found = read([jwk, good])
    assert list(found.ring.keys) == ["good"]
    assert next(iter(found.unused)).startswith(reason)
    assert f"has no usable key: 1 key {reason}" in why([jwk])


WRONG = {
    "nothing": b"",
    "HTML": b"<html>",
    "an array": b"[]",
    "null": b"null",
    "no keys": b"{}",
    "keys an object": b'{"keys": {}}',
    "keys null": b'{"keys": null}',
    "no key in it": b'{"keys": []}',
    "keys given twice": b'{"keys": [], "keys": []}',
    "too deep": b'{"keys": [[[[[[[[[[]]]]]]]]]]}',
    "UTF-16": '{"keys": []}'.encode("utf-16"),
    "101 keys": json.dumps({"keys": [EC.jwk()] * 101}).encode(),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_what_is_no_key_set_is_said_to_be_none(body: bytes) -> None:
    assert why(body).startswith("its key set ")


def test_an_rsa_key_that_could_be_for_either_algorithm_is_for_none() -> None:
    assert "key without alg, for the service allows RS256 and PS256" in why(
        [RSA.jwk(alg=ABSENT)], ("RS256", "PS256")
    )


def test_a_kid_that_two_usable_keys_have_is_nobodys() -> None:
    double = [signer("ES256", "a").jwk(), signer("EdDSA", "a").jwk(), signer("ES256", "b").jwk()]
    found = read(double)
    assert list(found.ring.keys) == ["b"]
    assert dict(found.unused) == {"with the same kid as another key": 2}
    twice = [RSA.jwk(kid="a"), RSA.jwk(kid="a"), signer("RS256", "other").jwk(kid="a"), EC.jwk(kid="b")]
    found = read(twice)
    assert list(found.ring.keys) == ["b"]
    assert dict(found.unused) == {"with the same kid as another key": 2}, "two keys, one of them listed twice"
    # One that is for something else takes no kid away.
    assert list(read([RSA.jwk(use="enc", kid="a"), signer("ES256", "a").jwk()]).ring.keys) == ["a"]


def test_one_key_that_is_listed_twice_is_one_key() -> None:
    found = read([RSA.jwk(), RSA.jwk(alg=ABSENT), RSA.jwk(use=ABSENT), EC.jwk()])
    assert list(found.ring.keys) == ["RS256", "ES256"]
    assert not found.unused
    for_both = [RSA.jwk(alg=name) for name in ("RS256", "PS256")]
    assert "same kid as another key" in why(for_both, ("RS256", "PS256")), "it is for one algorithm"


def test_it_says_in_words_what_is_used_and_what_is_not_and_why() -> None:
    listed = [EC.jwk(), RSA.jwk(), RSA.jwk(use="enc"), RSA.jwk(use="enc"), 5]
    used, unused = read(listed).findings("The key set at login.example")
    assert used.message == "The key set at login.example has 2 usable keys: ES256 (ES256), RS256 (RS256)."
    assert unused.message == ("Not used: 2 keys not for signatures; 1 key not written as a JSON object.")
    many = read([signer("EdDSA", f"k{number}").jwk() for number in range(12)]).findings("x")
    assert many[0].message.endswith("k9 (EdDSA), and 2 more.")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_proves_and_only_under_its_own_key(algorithm: str) -> None:
    algorithms = ("PS256" if algorithm == "PS256" else "RS256", "ES256", "EdDSA")
    ring = read([signer(algorithm).jwk()], algorithms).ring
    assert verify_jws(signer(algorithm).token({"a": 1}), ring, NOW).claims == {"a": 1}
    stranger = signer(algorithm, "stranger").token({"a": 1}, kid=algorithm)
    with pytest.raises(VerificationFailed) as refused:
        verify_jws(stranger, ring, NOW)
    assert refused.value.reason is FailureReason.SIGNATURE_INVALID


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128, 255, 257, 512])
def test_a_signature_of_another_length_is_none(algorithm: str, length: int) -> None:
    algorithms = ("PS256" if algorithm == "PS256" else "RS256", "ES256", "EdDSA")
    ring = read([signer(algorithm).jwk()], algorithms).ring
    header = {"alg": algorithm, "kid": algorithm}

    def padded(signed: bytes) -> bytes:
        right = signer(algorithm).signature(signed)
        return right[:length] if length < len(right) else bytes(length - len(right)) + right

    with pytest.raises(VerificationFailed) as refused:
        verify_jws(token(header, {"a": 1}, padded), ring, NOW)
    assert refused.value.reason in {FailureReason.SIGNATURE_INVALID, FailureReason.MALFORMED}


def test_an_unknown_kid_costs_a_check_with_a_key_of_the_same_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from jwt.algorithms import RSAAlgorithm

    checked: list[Any] = []
    verify = RSAAlgorithm.verify
    monkeypatch.setattr(
        RSAAlgorithm, "verify", lambda self, *args: checked.append(args[1]) or verify(self, *args)
    )
    ring = read([RSA.jwk()]).ring
    for made in (
        RSA.token({}, kid="nobody"),
        RSA.token({}, alg="none"),
        signer("RS256", "x").token({}, kid="RS256"),
    ):
        with pytest.raises(VerificationFailed):
            verify_jws(made, ring, NOW)
    assert checked == [ring.keys["RS256"].material] * 3


def test_a_key_whose_material_is_not_of_its_algorithm_proves_nothing() -> None:
    from providers.contract import KeyRing

    pem = RSA.pem.encode()
    odd = {
        "a": TrustedKey(None, "a", "RS256", pem),
        "b": TrustedKey(None, "b", "HS256", RSA.private.public_key()),
        "c": TrustedKey(None, "c", "ES256", None),
        "d": TrustedKey(None, "d", "EdDSA", EC.private.public_key()),
        "e": TrustedKey(None, "e", "none", pem),
    }
    for kid, key in odd.items():
        with pytest.raises(VerificationFailed) as refused:
            verify_jws(RSA.token({}, alg=key.algorithm, kid=kid), KeyRing("nagra", odd), NOW)
        assert refused.value.reason is FailureReason.KEY_UNREADABLE


def pem(key: Any) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


# text, key ID, kid and algorithm of the keys
ENTERED = {
    "RSA in PEM": (RSA.pem, "k1", {"k1": "RS256"}),
    "EC in PEM, with white space": (f"\n {EC.pem}\n", "k1", {"k1": "ES256"}),
    "Ed25519 in PEM": (OKP.pem, "k1", {"k1": "EdDSA"}),
    "lines that end as on Windows": (RSA.pem.replace("\n", "\r\n"), "k1", {"k1": "RS256"}),
    "a certificate": (RSA.certificate, "k1", {"k1": "RS256"}),
    "a certificate with EC": (EC.certificate, "k1", {"k1": "ES256"}),
    "a JWK behind a byte order mark": ("\ufeff" + json.dumps(EC.jwk()), "", {"ES256": "ES256"}),
    "a JWK": (json.dumps(EC.jwk()), "", {"ES256": "ES256"}),
    "a JWK Set": (json.dumps({"keys": [EC.jwk(), OKP.jwk()]}), "", {"ES256": "ES256", "EdDSA": "EdDSA"}),
    "a JWK Set of which one is used": (
        json.dumps({"keys": [RSA.jwk(use="enc"), OKP.jwk()]}),
        "",
        {"EdDSA": "EdDSA"},
    ),
}

NOT_ENTERED = {
    "nothing readable": ("hello", "k1", "is not a public key"),
    "two keys in PEM": (EC.pem + RSA.pem, "k1", "is not a public key"),
    "PEM without key ID": (EC.pem, "", "needs the key ID"),
    "PEM cut": (EC.pem.replace("M", "", 1), "k1", "is malformed"),
    "PEM of another curve": (signer("ES256", curve=ec.SECP384R1).pem, "k1", "is a key on another curve"),
    "PEM of 1024 bits": (signer("RS256", bits=1024).pem, "k1", "is a key of RSA with"),
    "PEM with a factor": (pem(RSAPublicNumbers(65537, 3 << 2046).public_key()), "k1", f"is a key {FACTOR}"),
    "PEM of low order": (
        pem(Ed25519PublicKey.from_public_bytes(bytes(32))),
        "k1",
        f"is a key {LOW_ORDER}",
    ),
    "a JWK with a factor": (json.dumps(rsa_times(3)), "", f"has no usable key: 1 key {FACTOR}"),
    "a certificate cut": (EC.certificate.replace("M", "", 1), "k1", "is malformed"),
    "PKCS#1": (EC.pem.replace("PUBLIC", "RSA PUBLIC"), "k1", "is not a public key"),
    "a JWK with a key ID beside it": (json.dumps(EC.jwk()), "k1", "contains its key ID"),
    "a JWK that is not usable": (
        json.dumps(EC.jwk(use="enc")),
        "",
        "has no usable key: 1 key not for signatures",
    ),
    "JSON that is none": ("{", "", "is malformed"),
    "keys a number": ('{"keys": 5}', "", "is not a JWK Set"),
}

PRIVATE = {
    "RSA in PEM": RSA.private_pem,
    "EC in PEM": EC.private_pem,
    "both halves in PEM": OKP.pem + OKP.private_pem,
    "encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
    "a JWK": json.dumps(EC.private_jwk),
    "a JWK of RSA": json.dumps(RSA.private_jwk),
    "a JWK Set": json.dumps({"keys": [EC.jwk(), OKP.private_jwk]}),
    "a shared one": json.dumps({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}),
    "a JWK behind a byte order mark": "\ufeff" + json.dumps(EC.private_jwk).replace('"d"', '"\\u0064"'),
    "a JWK that is cut": json.dumps(EC.private_jwk)[:-1],
    "a member spelt with an escape": json.dumps(EC.private_jwk).replace('"d"', '"\\u0064"'),
}


@pytest.mark.parametrize(("text", "key_id", "keys"), ENTERED.values(), ids=ENTERED)
def test_it_can_be_entered(text: str, key_id: str, keys: dict[str, str]) -> None:
    found = entered("nagra", PublicKeysField().clean(text), key_id, ALL)
    assert {kid: key.algorithm for kid, key in found.ring.keys.items()} == keys


@pytest.mark.parametrize(("text", "key_id", "reason"), NOT_ENTERED.values(), ids=NOT_ENTERED)
def test_it_cannot_be_entered(text: str, key_id: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        entered("nagra", PublicKeysField().clean(text), key_id, ALL)


@pytest.mark.parametrize("text", PRIVATE.values(), ids=PRIVATE)
def test_a_private_key_is_refused_and_neither_repeated_nor_given_back(text: str) -> None:
    field = PublicKeysField()
    with pytest.raises(ValidationError) as refused:
        field.clean(text)
    (message,) = refused.value.messages
    assert message.startswith("This is a private or shared key.")
    assert text[40:60] not in field.widget.render("public_keys", text)
    assert EC.pem[40:60] in field.widget.render("public_keys", EC.pem)
