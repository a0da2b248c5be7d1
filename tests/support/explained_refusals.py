"""Requests that are refused, each in another way, and what their explanations must say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ags.sessions.models import Account, Device
from tenants.models import Service
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.confused_tokens import EC
from tests.support.operators import add_key, add_trial_service, create_operator, create_platform
from tests.support.tokens import ENTERED, make_claims
from tests.support.upstream.signer import sign_with_secret
from tests.support.upstream.signer import token as any_token

SIGNED = "Signed JWT"
MARKER = "marker4711"
"""In all that no explanation may contain: tokens, accounts, claims, bodies."""

UNKNOWN = "x" * 26
"""A session token that AGS has not issued."""


@dataclass
class Caller:
    """The clients of an operator whose requests all have one correlation ID, unless a name is given."""

    head_end: HeadEnd
    id: str

    @property
    def app(self) -> ClientApp:
        return ClientApp(self.head_end)

    def present(self, **claims: Any) -> Any:
        claims = {"OpfAccountId": f"account-{MARKER}", **claims}
        return self.head_end.present(self.head_end.token(**claims), x_correlation_id=self.id)

    def present_raw(self, header: dict[str, Any], payload: Any = None) -> Any:
        claims = self.head_end.claims(OpfAccountId=MARKER) if payload is None else payload
        header = {"alg": "HS256", "kid": self.head_end.kid, **header}
        token = any_token(header, claims, sign_with_secret(self.head_end.secret))
        return self.head_end.present(token, x_correlation_id=self.id)

    def post(self, body: Any, **headers: str | None) -> Any:
        return self.head_end.post(body, **{"x_correlation_id": self.id, **headers})

    def send(self, name: str, value: Any, service: str = SERVICE) -> Any:
        return self.post({"parameters": [{"name": name, "value": value}]}, x_auth_service_id=service)

    def redeem(self, token: str, **members: Any) -> Any:
        device = members or {"deviceInformation": {"a": MARKER}}
        body = {"parameters": [{"name": "sessionToken", "value": token}], **device}
        return self.app.call("/ags/signOnWithSessionToken", body, x_correlation_id=self.id)

    def signed_on(self, account: str) -> ClientApp:
        app = self.app
        assert app.sign_on(account).status_code == 201
        return app


class Row(NamedTuple):
    """`summary` and `remedy` are parts of the sentences."""

    send: Callable[[Caller], Any]
    status: int
    check: str
    side: str
    summary: str
    remedy: str


def _replay(caller: Caller) -> Any:
    token = caller.head_end.token(jti=f"jti-{MARKER}")
    assert caller.head_end.present(token).status_code == 200
    return caller.head_end.present(token, x_correlation_id=caller.id)


def _spend(caller: Caller) -> Any:
    token = caller.app.session_token(MARKER)
    assert caller.app.redeem(token).status_code == 201
    return caller.redeem(token)


def _redeem_on_disabled(caller: Caller) -> Any:
    app = caller.signed_on("disabled")
    client_id = app.tokens["client_id"]
    Device.objects.for_tenant(caller.head_end.tenant_id).filter(client_id=client_id).update(status="disabled")
    return caller.redeem(app.session_token("disabled"), clientId=client_id)


def _redeem_suspended(caller: Caller) -> Any:
    app = caller.signed_on("suspended")
    accounts = Account.objects.for_tenant(caller.head_end.tenant_id)
    accounts.filter(account_id="suspended").update(status="suspended")
    return caller.redeem(app.session_token("suspended"), clientId=app.tokens["client_id"])


def _sign_out_twice(caller: Caller) -> Any:
    app = caller.signed_on("twice")
    assert app.sign_out().status_code == 200
    return app.sign_out(x_correlation_id=caller.id)


def _refresh_with_access_token(caller: Caller) -> Any:
    app = caller.signed_on("confused")
    return app.refresh(app.tokens["access_token"], x_correlation_id=caller.id)


def _sign_on_where_not_offered(caller: Caller) -> Any:
    body = {"parameters": [{"name": "OperatorAuthToken", "value": MARKER}], "deviceInformation": {}}
    return caller.app.call("/ags/signOn", body, x_correlation_id=caller.id)


def _introspect(caller: Caller) -> Any:
    platform = replace(
        create_platform(caller.head_end.tenant_id), secret=MARKER, client=caller.head_end.client
    )
    return platform.introspect(MARKER, x_correlation_id=caller.id)


def _sign_with_another_secret(caller: Caller) -> Any:
    return replace(caller, head_end=replace(caller.head_end, secret=bytes(32))).present()


def _use_revoked_key(caller: Caller) -> Any:
    return caller.present_raw({"kid": "revoked-key"})


def _present_signed(caller: Caller, **changes: Any) -> Any:
    return caller.send("Token", EC.token(make_claims(sub=MARKER, **changes), kid="ec-1"), SIGNED)


def _at(seconds: int) -> int:
    return int(time.time()) + seconds


ROWS: dict[str, Row] = {
    "an unknown tenant": Row(
        lambda caller: caller.post({"parameters": []}, nv_tenant_id="nobody"),
        403, "tenant", "head-end", "No tenant has the ID in the header nv-tenant-id", "Correct the header",
    ),
    "an unknown service": Row(
        lambda caller: caller.post({"parameters": []}, x_auth_service_id="No Service"),
        403, "service", "head-end", "no enabled service with the name", "Correct the header",
    ),
    "an endpoint that is not offered": Row(
        _sign_on_where_not_offered,
        403, "service", "client app", "does not offer this endpoint", "service discovery lists",
    ),
    "no header x-auth-service-id": Row(
        lambda caller: caller.post({"parameters": []}, x_auth_service_id=None),
        400, "form of the request", "head-end", "The header x-auth-service-id is missing", "Send the header",
    ),
    "a body that is not JSON": Row(
        lambda caller: caller.post(MARKER),
        400, "form of the request", "head-end", "it is not well-formed JSON", "Send a JSON object in UTF-8",
    ),
    "an unknown parameter": Row(
        lambda caller: caller.send(MARKER, MARKER),
        400, "parameters", "head-end", "it declares OperatorAuthToken", "service discovery lists",
    ),
    "a missing parameter": Row(
        lambda caller: caller.post({"parameters": []}),
        400, "parameters", "head-end", "OperatorAuthToken is missing", "Send all mandatory parameters",
    ),
    "a URL that does not exist": Row(
        lambda caller: caller.app.call(f"/ags/{MARKER}", {}, x_correlation_id=caller.id),
        404, "form of the request", "caller", "Nothing is at this URL", "Correct the URL",
    ),
    "no token": Row(
        lambda caller: caller.send("OperatorAuthToken", f"{MARKER}="),
        401, "form of the token", "head-end", "it is not a compact JWS", "look for a line break, quotes",
    ),
    "no kid": Row(
        lambda caller: caller.present_raw({"kid": f"{MARKER} {MARKER}"}),
        401, "form of the token", "head-end", "kid in its header is not accepted", "kid and typ",
    ),
    "a header with crit": Row(
        lambda caller: caller.present_raw({"crit": [MARKER]}),
        401, "form of the token", "head-end", "The header of the token contains crit.", "Leave them out",
    ),
    "an unknown key": Row(
        lambda caller: caller.present_raw({"kid": "another-key"}),
        401, "key (kid)", "head-end", "no key with the key ID (kid) another-key", "Compare the kid",
    ),
    "a revoked key": Row(
        _use_revoked_key,
        401, "state of the key", "configuration of the tenant in AGS", "revoked-key is staged or revoked",
        "a revoked key stays revoked",
    ),
    "another algorithm": Row(
        lambda caller: caller.present_raw({"alg": "HS512"}),
        401, "algorithm", "head-end", "says HS512, and the key", "Sign with the algorithm of the key",
    ),
    "another secret": Row(
        _sign_with_another_secret,
        401, "signature", "head-end", "does not match the key", "base64 of a secret is not the secret",
    ),
    "a payload that is not an object": Row(
        lambda caller: caller.present_raw({}, f'["{MARKER}"]'),
        401, "payload of the token", "head-end", "it is not a JSON object", "Send a JSON object as payload",
    ),
    "another type": Row(
        lambda caller: caller.present(typ=MARKER),
        401, "type of the token", "head-end", "typ of the token is not GetSessionTokenAuthN",
        "Send the right kind of token",
    ),
    "another audience": Row(
        lambda caller: caller.present(aud=["television", "x" * 500, {MARKER: MARKER}]),
        401, "audience", "head-end",
        f"audience television, {'x' * 63}…, (object), and the service requires ags",
        "Correct aud of the token",
    ),
    "a missing account": Row(
        lambda caller: caller.present(OpfAccountId=None),
        401, "other claims", "head-end", "The token lacks the claim OpfAccountId", "Add the claim",
    ),
    "exp as text": Row(
        lambda caller: caller.present_raw({}, caller.head_end.claims(exp=MARKER)),
        401, "times of the token", "head-end",
        "exp of the token has a value that the service does not accept (type: string)", "times are numbers",
    ),
    "an expired token": Row(
        lambda caller: caller.present(exp=_at(-3120), iat=_at(-3420)),
        401, "times of the token", "head-end",
        "before the clock of AGS; a difference of 30 seconds is allowed", "Synchronize the clock",
    ),
    "a token of the future": Row(
        lambda caller: caller.present_raw({}, caller.head_end.claims(iat=_at(3600), exp=_at(7200))),
        401, "times of the token", "head-end", "iat is 3,", "Synchronize the clock",
    ),
    "exp in milliseconds": Row(
        lambda caller: caller.present_raw({}, caller.head_end.claims(exp=_at(300) * 1000)),
        401, "times of the token", "head-end", "at most 315,619,200 seconds (3,653 days) are allowed",
        "Send exp in seconds, not in milliseconds",
    ),
    "a replayed token": Row(
        _replay, 401, "replay (jti)", "head-end", "accepted a token with this jti before", "a new jti",
    ),
    "the token of another tenant": Row(
        lambda caller: caller.present(OpfTenantId=MARKER),
        403, "other claims", "head-end", "OpfTenantId of the token names another tenant",
        "Correct the header",
    ),
    "another issuer": Row(
        lambda caller: _present_signed(caller, iss=MARKER),
        401, "issuer", "head-end", "not issued by https://login.operator.example", "a / at the end",
    ),
    "an unknown session token": Row(
        lambda caller: caller.redeem(UNKNOWN),
        401, "token known", "client app", "AGS has no such token", "Sign on again",
    ),
    "a session token that was used": Row(
        _spend, 401, "token unused", "client app", "was used before", "Get a new one",
    ),
    "an unknown device": Row(
        lambda caller: caller.redeem(caller.app.session_token(MARKER), clientId="unknown-device"),
        403, "device", "client app", "no device with this clientId", "signs on with deviceInformation",
    ),
    "a disabled device": Row(
        _redeem_on_disabled,
        403, "device", "staff", "Staff have disabled the device",
        "Enable the device",
    ),
    "a suspended account": Row(
        _redeem_suspended,
        403, "status of the account", "staff", "is suspended", "Reactivate the account",
    ),
    "a second sign-out": Row(
        _sign_out_twice, 401, "sign-on not ended", "client app", "The sign-on has ended", "Sign on again",
    ),
    "an access token instead of a refresh token": Row(
        _refresh_with_access_token,
        401, "form of the token", "client app", "not one that AGS issued to this tenant for this endpoint",
        "Send the right token",
    ),
    "a wrong password": Row(
        lambda caller: caller.send("Account", "nobody", TRIAL),
        401, "credentials", "subscriber", "the password is wrong", "The subscriber types them again",
    ),
    "several accounts": Row(
        lambda caller: caller.send("Account", f"a-{MARKER},b-{MARKER}", TRIAL),
        403, "one account", "head-end", "match several accounts", "subsequentSignOn",
    ),
    "an upstream that is unavailable": Row(
        lambda caller: caller.send("Account", "away", TRIAL),
        503, "server of the operator", "server of the operator", "could not be reached",
        "whether the firewall lets AGS through",
    ),
    "the wrong secret of a resource server": Row(
        _introspect,
        401, "credentials of the resource server", "resource server", "client secret is invalid",
        "an enabled resource server",
    ),
}  # fmt: skip


def create_refused_operator(tenant_id: str) -> HeadEnd:
    """Save an operator with all that the rows need."""
    head_end = create_operator(tenant_id, bytes(range(1, 33)), is_limited=False)
    add_key(replace(head_end, kid="revoked-key"), state="revoked")
    add_trial_service(tenant_id)
    settings = ENTERED | {"public_keys": EC.pem, "key_id": "ec-1"}
    Service(
        tenant_id=tenant_id,
        name=SIGNED,
        strategy="signed_jwt",
        display_name=SIGNED,
        enabled=True,
        settings=json.loads(json.dumps(settings)),
    ).save()
    return head_end
