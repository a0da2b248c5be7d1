"""Property-based tests of `verify_jws` against a small reference model."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import KeyRing, TrustedKey, VerificationFailed
from providers.jose import decode_base64url, verify_jws

SECRETS = {"a": bytes(range(1, 65)), "b": bytes(range(101, 165))}
ALGORITHMS = {"a": "HS256", "b": "HS512"}
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
RING = KeyRing(
    "nagra",
    {kid: TrustedKey(id=1, kid=kid, algorithm=ALGORITHMS[kid], material=SECRETS[kid]) for kid in SECRETS},
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
kids = st.sampled_from(["a", "b", "c", "", "../a", "a\n"]) | scalars
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from([*HASHES, "none", "RS256", "hs256"]) | scalars, "kid": kids},
    optional={"typ": st.sampled_from(["JWT", "jwt", "application/jwt", "at+jwt"]) | scalars},
) | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jku", "b64", "zip"]), values, max_size=4)
good_headers = st.sampled_from(["a", "b"]).map(lambda kid: {"alg": ALGORITHMS[kid], "kid": kid})
claims = st.dictionaries(st.text(max_size=5), values, max_size=4)


@st.composite
def documents(draw: st.DrawFn, of: st.SearchStrategy[Any]) -> bytes:
    """JSON in different encodings, sometimes invalid."""
    value = draw(of)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    match draw(st.sampled_from(["plain"] * 8 + ["twice", "utf-16", "cut", "nan", "bom", "deep"])):
        case "twice" if isinstance(value, dict) and value:
            name, member = next(iter(value.items()))
            text = "{" + f"{json.dumps(name)}: {json.dumps(member)}, " + text.lstrip()[1:]
        case "utf-16":
            return text.encode("utf-16", "surrogatepass")
        case "cut":
            text = text[: draw(st.integers(0, len(text)))]
        case "nan":
            text = '{"a": NaN}'
        case "bom":
            text = "\ufeff" + text
        case "deep":
            text = '{"a": ' + "[" * 40 + "]" * 40 + "}"
    return text.encode("utf-8", "surrogatepass")


@st.composite
def tokens(draw: st.DrawFn) -> str:
    """A token signed with any key and algorithm, sometimes damaged."""
    header = draw(documents(good_headers | headers))
    payload = draw(documents(claims))
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    secret = SECRETS[draw(st.sampled_from(["a", "b"]))]
    digest = hmac.new(secret, signed, HASHES[draw(st.sampled_from(sorted(HASHES)))]).digest()
    token = (signed + b"." + urlsafe_b64encode(digest).rstrip(b"=")).decode()
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(token)))
        length = draw(st.integers(0, 2))
        new = draw(st.text(alphabet="AZaz09-_.=+/ \n\u00e9", max_size=2))
        token = token[:place] + new + token[place + length :]
    return token


def model(token: str) -> dict[str, Any] | None:
    """Return the claims of a valid token, otherwise None: a simple reimplementation."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 8192:
        return None
    raw = [_base64url(part) for part in parts]
    if any(part is None for part in raw):
        return None
    header, payload = _plain_object(raw[0]), _plain_object(raw[1])
    if header is None or payload is None or set(header) & {"crit", "b64"}:
        return None
    if header.get("typ", "JWT") not in ("JWT", "jwt", "application/jwt"):
        return None
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in SECRETS or header.get("alg") != ALGORITHMS[kid]:
        return None
    right = hmac.new(SECRETS[kid], f"{parts[0]}.{parts[1]}".encode(), HASHES[ALGORITHMS[kid]])
    return payload if right.digest() == raw[2] else None


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _base64url(part: str) -> bytes | None:
    """Decode base64url bit by bit (RFC 4648, section 5); spare bits must be zero."""
    if not part or any(character not in ALPHABET for character in part) or len(part) % 4 == 1:
        return None
    bits = "".join(f"{ALPHABET.index(character):06b}" for character in part)
    whole = len(bits) // 8 * 8
    return None if "1" in bits[whole:] else bytes(int(bits[i : i + 8], 2) for i in range(0, whole, 8))


def _plain_object(raw: bytes | None) -> dict[str, Any] | None:
    assert raw is not None
    try:
        pairs = json.JSONDecoder(object_pairs_hook=tuple).decode(raw.decode("utf-8"))
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or len(pairs) != len(value) or _depth(value) > 8:
        return None
    text = repr(pairs)
    odd = re.search(r"\\x00|\\ud[89a-f]", text) or re.search(r"(?<![\w'])-?(nan|inf)(?![\w'])", text)
    return None if odd else value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@settings(
    max_examples=1500, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(tokens())
def test_verify_jws_agrees_with_the_model(token: str) -> None:
    try:
        found = verify_jws(token, RING, 1_800_000_000.0).claims
    except VerificationFailed:
        found = None
    assert found == model(token)


def test_the_strategy_generates_valid_and_invalid_tokens() -> None:
    from hypothesis import find

    assert model(find(tokens(), lambda token: model(token) is not None)) is not None
    assert model(find(tokens(), lambda token: model(token) is None)) is None


def round_trip(text: str) -> bytes | None:
    """Decode leniently, and accept only the text that encodes to itself."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if urlsafe_b64encode(raw).rstrip(b"=").decode() == text else None


texts = (
    st.text()
    | st.text(alphabet=ALPHABET)
    | st.text(alphabet=ALPHABET + "+/= \n\0\u00e9\u0430")
    # Valid text with any last character.
    | st.tuples(st.binary(), st.sampled_from(ALPHABET + "+/=")).map(
        lambda drawn: urlsafe_b64encode(drawn[0]).rstrip(b"=").decode()[:-1] + drawn[1]
    )
)


@settings(max_examples=2000, derandomize=True, database=None, deadline=None)
@given(texts)
def test_decode_base64url_accepts_canonical_text_only(text: str) -> None:
    try:
        found = decode_base64url(text)
    except ValueError:
        found = None
    assert found == round_trip(text)
