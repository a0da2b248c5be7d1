"""Public keys of an operator: from a JWK Set, and entered by staff."""

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
from providers.jwks import JWKSet, JWKSetReader, PublicKeysField, UnusableKey, parse_static_keys
from tests.support.upstream.signer import ABSENT, ALGORITHMS, base64url, signer, token

ALL = ("RS256", "ES256", "EdDSA")
RSA, EC, OKP = signer("RS256"), signer("ES256"), signer("EdDSA")
NOW = 1_800_000_000.0


def parse_jwk_set(keys: Any, algorithms: tuple[str, ...] = ALL) -> JWKSet:
    body = keys if isinstance(keys, bytes) else json.dumps({"keys": keys}).encode()
    return JWKSetReader("nagra", algorithms)(body)


def get_message(keys: Any, algorithms: tuple[str, ...] = ALL) -> str:
    with pytest.raises(UpstreamUnavailable) as raised:
        parse_jwk_set(keys, algorithms)
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
    """Return a key whose modulus has this factor."""
    modulus = RSA.private.public_key().public_numbers().n * factor
    return RSA.jwk(n=base64url(modulus.to_bytes((modulus.bit_length() + 7) // 8)))


def ed25519(text: str, *, sign: bool = False) -> dict[str, Any]:
    raw = bytearray.fromhex(text)
    raw[31] |= sign << 7
    return OKP.jwk(x=base64url(bytes(raw)))


# key, algorithms of the service, algorithm of the key
USED = {
    "RSA": (RSA.jwk(), ALL, "RS256"),
    "RSA for PS256": (RSA.jwk(alg="PS256"), ("RS256", "PS256"), "PS256"),
    "RSA without alg, RS256 allowed": (RSA.jwk(alg=ABSENT), ALL, "RS256"),
    "RSA without alg, PS256 allowed": (RSA.jwk(alg=ABSENT), ("PS256", "ES256"), "PS256"),
    "RSA of 3072 bits": (signer("RS256", bits=3072).jwk(), ALL, "RS256"),
    "RSA with a factor of 4099": (rsa_times(4099), ALL, "RS256"),
    "P-256": (EC.jwk(), ALL, "ES256"),
    "P-256 without alg": (EC.jwk(alg=ABSENT, use=ABSENT), ALL, "ES256"),
    "Ed25519": (OKP.jwk(), ALL, "EdDSA"),
    "Ed25519 without alg": (OKP.jwk(alg=ABSENT), ALL, "EdDSA"),
    "for verifying": (EC.jwk(use=ABSENT, key_ops=["verify"]), ALL, "ES256"),
    "with ignored members": (
        EC.jwk(x5c=["MIIB"], x5t="a", x5u="https://e.example", exp=1),
        ALL,
        "ES256",
    ),
}


NO_KID = "without a kid of"
SECRET = "that is private or shared"
PURPOSE = "not for signatures"
NOT_ALLOWED = "for none of the algorithms"
MALFORMED = "with malformed members"
FACTOR = "with an RSA modulus that is even or has another factor below 4096"
LOW_ORDER = "with an Ed25519 point of low order"
NO_POINT = "with octets that encode no Ed25519 point"
OTHER_KIND = "that is not RSA, EC"
UNUSED = {
    "a number": (5, "that is not a JSON object"),
    "null": (None, "that is not a JSON object"),
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
    "shared": ({"kty": "oct", "k": base64url(bytes(32)), "kid": "k", "alg": "HS256"}, SECRET),
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
    "RSA of 1024 bits": (signer("RS256", bits=1024).jwk(), "with an RSA modulus of fewer than 2048"),
    "RSA of 2047 bits": (
        RSA.jwk(n=base64url(b"\x7f" + b"\xff" * 255)),
        "with an RSA modulus of fewer than 2048",
    ),
    "RSA of 8200 bits": (RSA.jwk(n=base64url(b"\xff" * 1025)), MALFORMED),
    "RSA of a million bits": (RSA.jwk(n=base64url(b"\xff" * 131072)), MALFORMED),
    "e of 1": (RSA.jwk(e="AQ"), MALFORMED),
    "e even": (RSA.jwk(e="BA"), MALFORMED),
    "e of zero": (RSA.jwk(e="AA"), MALFORMED),
    "e of 33 bits": (RSA.jwk(e=base64url(b"\x01\x00\x00\x00\x01")), "with an RSA exponent"),
    **{f"n with the factor {factor}": (rsa_times(factor), FACTOR) for factor in (2, 3, 751, 4093)},
    "n of zeros": (RSA.jwk(n=base64url(bytes(256))), MALFORMED),
    "n empty": (RSA.jwk(n=""), MALFORMED),
    "n a number": (RSA.jwk(n=5), MALFORMED),
    "n missing": (RSA.jwk(n=ABSENT), MALFORMED),
    "n in plain base64": (RSA.jwk(n=RSA.jwk()["n"][:-4] + "++//"), MALFORMED),
    "n padded": (RSA.jwk(n=RSA.jwk()["n"] + "=="), MALFORMED),
    "n in non-ASCII letters": (RSA.jwk(n="\u0430" * 300), MALFORMED),
    "another curve": (signer("ES256", curve=ec.SECP384R1).jwk(), OTHER_KIND),
    "a point that is not on the curve": (EC.jwk(x=base64url(bytes(31) + b"\x05")), MALFORMED),
    "the point at infinity": (EC.jwk(x=base64url(bytes(32)), y=base64url(bytes(32))), MALFORMED),
    "a coordinate of 33 octets": (EC.jwk(x=base64url(b"\1" + bytes(32))), MALFORMED),
    "a coordinate of 48 octets": (EC.jwk(x=base64url(b"\1" * 48)), MALFORMED),
    "an empty coordinate": (EC.jwk(x=""), MALFORMED),
    "a coordinate too short": (EC.jwk(x=base64url(bytes(31))), MALFORMED),
    **{
        f"a point of low order, {text[:4]} and sign {sign}": (ed25519(text, sign=sign), LOW_ORDER)
        for text in LOW_ORDER_POINTS
        for sign in (False, True)
    },
    "Ed25519 that is not on the curve": (ed25519(f"02{0:062x}"), NO_POINT),
    "Ed25519 that is not in its one encoding": (ed25519(f"f0{'ff' * 30}7f"), NO_POINT),
    "Ed25519 of 31 bytes": (OKP.jwk(x=base64url(bytes(31))), MALFORMED),
    "Ed448": (OKP.jwk(crv="Ed448", x=base64url(bytes(57))), OTHER_KIND),
    "X25519": (OKP.jwk(crv="X25519"), OTHER_KIND),
    "kty in lower case": (EC.jwk(kty="ec"), OTHER_KIND),
    "kty a list": (EC.jwk(kty=["EC"]), OTHER_KIND),
    "kty missing": (EC.jwk(kty=ABSENT), OTHER_KIND),
}


@pytest.mark.parametrize(("jwk", "algorithms", "algorithm"), USED.values(), ids=USED)
def test_the_key_is_used(jwk: Any, algorithms: tuple[str, ...], algorithm: str) -> None:
    (key,) = parse_jwk_set([jwk], algorithms).key_ring.keys.values()
    assert (key.kid, key.algorithm, key.id) == (jwk["kid"], algorithm, None)


@pytest.mark.parametrize(("jwk", "reason"), UNUSED.values(), ids=UNUSED)
def test_an_unusable_key_is_ignored_and_others_are_used(jwk: Any, reason: str) -> None:
    good = signer("ES256", "good").jwk()
    jwk_set = parse_jwk_set([jwk, good])
    assert list(jwk_set.key_ring.keys) == ["good"]
    assert next(iter(jwk_set.unused)).startswith(reason)
    assert f"has no usable key: 1 key {reason}" in get_message([jwk])


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
def test_an_invalid_jwk_set_is_rejected(body: bytes) -> None:
    assert get_message(body).startswith("its JWK Set ")


def test_an_rsa_key_without_alg_is_ambiguous() -> None:
    assert "key without alg, although the service allows RS256 and PS256" in get_message(
        [RSA.jwk(alg=ABSENT)], ("RS256", "PS256")
    )


def test_different_keys_with_the_same_kid_are_not_used() -> None:
    double = [signer("ES256", "a").jwk(), signer("EdDSA", "a").jwk(), signer("ES256", "b").jwk()]
    jwk_set = parse_jwk_set(double)
    assert list(jwk_set.key_ring.keys) == ["b"]
    assert dict(jwk_set.unused) == {"with the same kid as another key": 2}
    twice = [RSA.jwk(kid="a"), RSA.jwk(kid="a"), signer("RS256", "other").jwk(kid="a"), EC.jwk(kid="b")]
    jwk_set = parse_jwk_set(twice)
    assert list(jwk_set.key_ring.keys) == ["b"]
    assert dict(jwk_set.unused) == {"with the same kid as another key": 2}, (
        "two keys, one of them listed twice"
    )
    # An unusable key does not make a kid ambiguous.
    assert list(parse_jwk_set([RSA.jwk(use="enc", kid="a"), signer("ES256", "a").jwk()]).key_ring.keys) == [
        "a"
    ]


def test_a_key_that_is_listed_twice_is_used() -> None:
    jwk_set = parse_jwk_set([RSA.jwk(), RSA.jwk(alg=ABSENT), RSA.jwk(use=ABSENT), EC.jwk()])
    assert list(jwk_set.key_ring.keys) == ["RS256", "ES256"]
    assert not jwk_set.unused
    for_both = [RSA.jwk(alg=name) for name in ("RS256", "PS256")]
    assert "same kid as another key" in get_message(for_both, ("RS256", "PS256")), "alg differs"


def test_check_results_list_used_and_unused_keys() -> None:
    listed = [EC.jwk(), RSA.jwk(), RSA.jwk(use="enc"), RSA.jwk(use="enc"), 5]
    used, unused = parse_jwk_set(listed).check_results("The JWK Set at login.example")
    assert used.message == "The JWK Set at login.example has 2 usable keys: ES256 (ES256), RS256 (RS256)."
    assert unused.message == ("Not used: 2 keys not for signatures; 1 key that is not a JSON object.")
    many = parse_jwk_set([signer("EdDSA", f"k{number}").jwk() for number in range(12)]).check_results("x")
    assert many[0].message.endswith("k9 (EdDSA), and 2 more.")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_verifies_only_with_its_own_key(algorithm: str) -> None:
    algorithms = ("PS256" if algorithm == "PS256" else "RS256", "ES256", "EdDSA")
    ring = parse_jwk_set([signer(algorithm).jwk()], algorithms).key_ring
    assert verify_jws(signer(algorithm).token({"a": 1}), ring, NOW).claims == {"a": 1}
    other_key = signer(algorithm, "other_key").token({"a": 1}, kid=algorithm)
    with pytest.raises(VerificationFailed) as raised:
        verify_jws(other_key, ring, NOW)
    assert raised.value.reason is FailureReason.SIGNATURE_INVALID


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128, 255, 257, 512])
def test_a_signature_of_another_length_is_rejected(algorithm: str, length: int) -> None:
    algorithms = ("PS256" if algorithm == "PS256" else "RS256", "ES256", "EdDSA")
    ring = parse_jwk_set([signer(algorithm).jwk()], algorithms).key_ring
    header = {"alg": algorithm, "kid": algorithm}

    def padded(signed: bytes) -> bytes:
        right = signer(algorithm).signature(signed)
        return right[:length] if length < len(right) else bytes(length - len(right)) + right

    with pytest.raises(VerificationFailed) as raised:
        verify_jws(token(header, {"a": 1}, padded), ring, NOW)
    assert raised.value.reason in {FailureReason.SIGNATURE_INVALID, FailureReason.MALFORMED}


def test_an_unknown_kid_causes_a_check_with_a_key_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from jwt.algorithms import RSAAlgorithm

    checked: list[Any] = []
    verify = RSAAlgorithm.verify

    def record_call(self: RSAAlgorithm, *args: Any) -> bool:
        checked.append(args[1])
        return verify(self, *args)

    monkeypatch.setattr(RSAAlgorithm, "verify", record_call)
    ring = parse_jwk_set([RSA.jwk()]).key_ring
    for jws in (
        RSA.token({}, kid="nobody"),
        RSA.token({}, alg="none"),
        signer("RS256", "x").token({}, kid="RS256"),
    ):
        with pytest.raises(VerificationFailed):
            verify_jws(jws, ring, NOW)
    assert checked == [ring.keys["RS256"].material] * 3


def test_material_of_another_type_than_the_algorithm_is_unreadable() -> None:
    from providers.contract import KeyRing

    pem = RSA.pem.encode()
    mismatched = {
        "a": TrustedKey(None, "a", "RS256", pem),
        "b": TrustedKey(None, "b", "HS256", RSA.private.public_key()),
        "c": TrustedKey(None, "c", "ES256", None),
        "d": TrustedKey(None, "d", "EdDSA", EC.private.public_key()),
        "e": TrustedKey(None, "e", "none", pem),
    }
    for kid, key in mismatched.items():
        with pytest.raises(VerificationFailed) as raised:
            verify_jws(RSA.token({}, alg=key.algorithm, kid=kid), KeyRing("nagra", mismatched), NOW)
        assert raised.value.reason is FailureReason.KEY_UNREADABLE


def pem(key: Any) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


# text, key ID, kid and algorithm of the keys
VALID_STATIC_KEYS = {
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

INVALID_STATIC_KEYS = {
    "not a key": ("hello", "k1", "is not a public key"),
    "two keys in PEM": (EC.pem + RSA.pem, "k1", "is not a public key"),
    "PEM without key ID": (EC.pem, "", "needs a key ID"),
    "truncated PEM": (EC.pem.replace("M", "", 1), "k1", "is malformed"),
    "PEM of another curve": (signer("ES256", curve=ec.SECP384R1).pem, "k1", "is a key on a curve other"),
    "PEM of 1024 bits": (signer("RS256", bits=1024).pem, "k1", "is a key with an RSA modulus"),
    "PEM with a factor": (pem(RSAPublicNumbers(65537, 3 << 2046).public_key()), "k1", f"is a key {FACTOR}"),
    "PEM of low order": (
        pem(Ed25519PublicKey.from_public_bytes(bytes(32))),
        "k1",
        f"is a key {LOW_ORDER}",
    ),
    "a JWK with a factor": (json.dumps(rsa_times(3)), "", f"has no usable key: 1 key {FACTOR}"),
    "a truncated certificate": (EC.certificate.replace("M", "", 1), "k1", "is malformed"),
    "PKCS#1": (EC.pem.replace("PUBLIC", "RSA PUBLIC"), "k1", "is not a public key"),
    "a JWK and a key ID": (json.dumps(EC.jwk()), "k1", "contains its key ID"),
    "a JWK that is not usable": (
        json.dumps(EC.jwk(use="enc")),
        "",
        "has no usable key: 1 key not for signatures",
    ),
    "invalid JSON": ("{", "", "is not valid JSON"),
    "keys a number": ('{"keys": 5}', "", "is not a JWK Set"),
}

PRIVATE_KEYS = {
    "RSA in PEM": RSA.private_pem,
    "EC in PEM": EC.private_pem,
    "both halves in PEM": OKP.pem + OKP.private_pem,
    "encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
    "a JWK": json.dumps(EC.private_jwk),
    "a JWK of RSA": json.dumps(RSA.private_jwk),
    "a JWK Set": json.dumps({"keys": [EC.jwk(), OKP.private_jwk]}),
    "a shared one": json.dumps({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}),
    "a JWK behind a byte order mark": "\ufeff" + json.dumps(EC.private_jwk).replace('"d"', '"\\u0064"'),
    "a truncated JWK": json.dumps(EC.private_jwk)[:-1],
    "a member with an escape": json.dumps(EC.private_jwk).replace('"d"', '"\\u0064"'),
}


@pytest.mark.parametrize(("text", "key_id", "keys"), VALID_STATIC_KEYS.values(), ids=VALID_STATIC_KEYS)
def test_valid_static_keys(text: str, key_id: str, keys: dict[str, str]) -> None:
    jwk_set = parse_static_keys("nagra", PublicKeysField().clean(text), key_id, ALL)
    assert {kid: key.algorithm for kid, key in jwk_set.key_ring.keys.items()} == keys


@pytest.mark.parametrize(("text", "key_id", "reason"), INVALID_STATIC_KEYS.values(), ids=INVALID_STATIC_KEYS)
def test_invalid_static_keys(text: str, key_id: str, reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason):
        parse_static_keys("nagra", PublicKeysField().clean(text), key_id, ALL)


@pytest.mark.parametrize("text", PRIVATE_KEYS.values(), ids=PRIVATE_KEYS)
def test_a_private_key_is_rejected_and_not_rendered(text: str) -> None:
    field = PublicKeysField()
    with pytest.raises(ValidationError) as raised:
        field.clean(text)
    (message,) = raised.value.messages
    assert message.startswith("This is a private or shared key.")
    assert text[40:60] not in field.widget.render("public_keys", text)
    assert EC.pem[40:60] in field.widget.render("public_keys", EC.pem)
