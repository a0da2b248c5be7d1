"""The voucher: which are accepted, and which are refused with what."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from voucher.strategy import Voucher

from providers.contract import Identity, KeyRing, Refusal, Refused, TrustedKey

SECRET = bytes(range(32))
KEY = TrustedKey(id=7, kid="vouchers", algorithm="HS256", material=SECRET)


def code(until: str, account: str, secret: bytes = SECRET) -> str:
    return hmac.new(secret, f"{until} {account}".encode(), hashlib.sha256).hexdigest()


def verify(account: str, until: str, given: str, *keys: TrustedKey) -> Identity:
    parameters = {"Account": account, "Until": until, "Code": given}
    return Voucher().verify(parameters, {"kid": "vouchers"}, KeyRing("nagra", {key.kid: key for key in keys}))


@pytest.mark.parametrize("account", ["account-1", "Ünïcode", "x" * 200])
def test_it_accepts(account: str) -> None:
    identity = verify(account, "2099-12-31", code("2099-12-31", account), KEY)
    assert (identity.account_id, identity.key_id) == (account, 7)
    assert identity.jti == f"2099-12-31 {account}"
    assert identity.replayable_until == 4102444800


A, DAY, PAST = "account-1", "2099-12-31", "2020-12-31"

# account, last day, code, keys, why
REFUSED: dict[str, tuple[str, str, str, list[TrustedKey], Refusal]] = {
    "the code of another account": (A, DAY, code(DAY, "other"), [KEY], Refusal.CREDENTIAL_UNKNOWN),
    "the code of another day": (A, DAY, code(PAST, A), [KEY], Refusal.CREDENTIAL_UNKNOWN),
    "a code under another key": (A, DAY, code(DAY, A, b"x"), [KEY], Refusal.CREDENTIAL_UNKNOWN),
    "no such key": (A, DAY, code(DAY, A), [], Refusal.KEY_UNKNOWN),
    "a day that is over": (A, PAST, code(PAST, A), [KEY], Refusal.TOKEN_EXPIRED),
    "a day that is none": (A, "2099-13-31", code("2099-13-31", A), [KEY], Refusal.CLAIM_INVALID),
    "what is no account": ("a\nb", DAY, code(DAY, "a\nb"), [KEY], Refusal.IDENTITY_INVALID),
}


@pytest.mark.parametrize(("account", "until", "given", "keys", "refusal"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(account: str, until: str, given: str, keys: list[TrustedKey], refusal: Refusal) -> None:
    with pytest.raises(Refused) as refused:
        verify(account, until, given, *keys)
    assert refused.value.refusal is refusal
