"""The strategy: an account, a last day and a code, printed on paper."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from rest_framework import serializers

from providers.contract import (
    Endpoint,
    Example,
    Identity,
    KeyRing,
    Parameter,
    Refusal,
    Refused,
    SessionTokenSettings,
    Strategy,
)

DAY = 24 * 3600


class VoucherParameters(serializers.Serializer[Any]):
    """What the caller sends."""

    Account = Parameter(description="The account on the voucher.", max_length=200)
    Until = Parameter(description="The last day on it (UTC), such as 2026-12-31.", max_length=10)
    Code = Parameter(description="The code on it.", max_length=64, password=True)


class VoucherSettings(SessionTokenSettings):
    """What staff configure."""

    kid = forms.CharField(
        max_length=128, initial="vouchers", help_text="The key of the tenant that vouchers are made with."
    )


class Voucher(Strategy):
    """Proof by a voucher."""

    slug = "voucher"
    label = "Voucher"
    endpoints = (
        Endpoint.SIGNON,
        Endpoint.GET_SESSION_TOKEN,
        Endpoint.SIGNON_WITH_SESSION_TOKEN,
        Endpoint.SIGNOUT,
    )
    uses_keys = True
    is_nonblocking = True
    Parameters = VoucherParameters
    Settings = VoucherSettings
    example = Example(parameters={"Account": "account-1", "Until": "2099-12-31", "Code": "0123abcd" * 8})

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account, once, up to the last day on the voucher."""
        now = time.time()
        key = keys.get(settings["kid"])
        if key is None:
            raise Refused(Refusal.KEY_UNKNOWN)
        if (unusable := key.refusal(now)) is not None:
            raise Refused(unusable)
        printed = f"{parameters['Until']} {parameters['Account']}"
        right = hmac.new(key.material, printed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(right.encode(), parameters["Code"].encode()):
            raise Refused(Refusal.CREDENTIAL_UNKNOWN)
        # It is proven, and from here on the caller is told precisely what is wrong.
        ends = _end_of(parameters["Until"])
        if now >= ends:
            raise Refused(Refusal.TOKEN_EXPIRED, "Until")
        return Identity(parameters["Account"], key_id=key.id, jti=printed, replayable_until=ends)


def _end_of(day: str) -> float:
    try:
        return datetime.strptime(f"{day} +0000", "%Y-%m-%d %z").timestamp() + DAY
    except ValueError:
        raise Refused(Refusal.CLAIM_INVALID, "Until") from None
