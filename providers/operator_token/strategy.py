"""The operator token strategy: a JWT with account and tenant, signed by the head-end with a shared secret."""

from collections.abc import Iterable, Mapping
from typing import Any

from rest_framework import serializers

from providers.claims import TokenSettings, check_times, create_identity, jti, require, string
from providers.contract import (
    CheckResult,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Step,
    Strategy,
    VerificationFailed,
    current_time,
)
from providers.jose import STEPS, verify_jws

TOKEN_TYPE = "GetSessionTokenAuthN"  # noqa: S105 - the public value of the claim `typ`
AUDIENCE = "ags"


class OperatorTokenParameters(serializers.Serializer[Any]):
    OperatorAuthToken = Parameter(
        description="A JWT with account and tenant, signed with a secret that the operator shares with AGS."
    )


class OperatorToken(Strategy):
    slug = "operator_token"
    label = "Operator token (JWT with a shared secret)"
    endpoints = (Endpoint.GET_SESSION_TOKEN, Endpoint.SIGNON_WITH_SESSION_TOKEN, Endpoint.SIGNOUT)
    uses_keys = True
    blocking = False
    steps = (*STEPS, Step.TYPE, Step.AUDIENCE, Step.TIMES, Step.CLAIMS, Step.REPLAY)
    Parameters = OperatorTokenParameters
    Settings = TokenSettings
    # Well-formed; the signature is invalid.
    example = Example(
        parameters={"OperatorAuthToken": "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleS0xIn0.e30." + "A" * 43}
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        now = current_time()
        verified = verify_jws(parameters["OperatorAuthToken"], keys, now)
        claims = verified.claims
        if require(claims, "typ") != TOKEN_TYPE:
            raise VerificationFailed(FailureReason.TYPE_MISMATCH, "typ", expected=TOKEN_TYPE)
        if (audience := require(claims, "aud")) not in (AUDIENCE, [AUDIENCE]):
            raise VerificationFailed(
                FailureReason.AUDIENCE_MISMATCH, "aud", audience=audience, expected=AUDIENCE
            )
        expires = check_times(claims, settings, now)
        account_id = string(claims, "OpfAccountId")
        if string(claims, "OpfTenantId") != keys.tenant:
            raise VerificationFailed(FailureReason.TENANT_MISMATCH, "OpfTenantId")
        return create_identity(account_id, verified.key.id, jti(claims, settings["replay"]), expires)

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        if kids := keys.kids_in_force(current_time()):
            yield CheckResult(True, f"Keys in force: {', '.join(kids)}.")
        else:
            yield CheckResult(False, "The tenant has no shared secret in force, so no token can be accepted.")
