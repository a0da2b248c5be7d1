"""The steps of each endpoint, in their order."""

from collections.abc import Mapping

from ags.explanations.reasons import Side
from providers.contract import Step, Strategy

GET_SESSION_TOKEN = "/ags/getSessionToken"  # noqa: S105 - a URL
SIGN_ON = "/ags/signOn"
REDEEM = "/ags/signOnWithSessionToken"
CHOOSE = "/ags/subsequentSignOn"
REFRESH = "/ias/v3/token/actions/refresh"
SIGN_OUT = "/ags/signOut"

_BEGIN = (Step.ADDRESS_LIMIT, Step.REQUEST)
_SERVICE = (*_BEGIN, Step.TENANT, Step.SERVICE)
_ACCEPT = (Step.CREDENTIALS, Step.ONE_ACCOUNT, Step.ACCOUNT_LIMIT)
_REDEEM = (
    Step.SIGNING_KEY,
    Step.TOKEN_KNOWN,
    Step.TOKEN_UNUSED,
    Step.TOKEN_NOT_REVOKED,
    Step.TOKEN_NOT_EXPIRED,
    Step.KEY_STATE,
    Step.ACCOUNT,
    Step.DEVICE,
)
_REFRESH = (
    Step.TENANT,
    Step.SIGNING_KEY,
    Step.FORM,
    Step.TOKEN_KNOWN,
    Step.SERVICE,
    Step.KEY_STATE,
    Step.ACCOUNT,
    Step.DEVICE,
    Step.SIGN_ON,
    Step.TOKEN_NOT_REVOKED,
    Step.TOKEN_UNUSED,
    Step.TOKEN_NOT_EXPIRED,
    Step.REFRESH_LIMIT,
)

ROUTES: Mapping[str, tuple[Step, ...]] = {
    GET_SESSION_TOKEN: (*_SERVICE, Step.PARAMETERS, Step.PASSWORD_LIMIT, *_ACCEPT),
    SIGN_ON: (
        *_SERVICE,
        Step.PARAMETERS,
        Step.SIGNING_KEY,
        Step.PASSWORD_LIMIT,
        *_ACCEPT,
        Step.ACCOUNT,
        Step.DEVICE,
    ),
    REDEEM: (*_BEGIN, Step.PARAMETERS, Step.TENANT, Step.SERVICE, *_REDEEM),
    CHOOSE: (*_SERVICE, Step.FORM, *_REDEEM),
    REFRESH: (*_BEGIN, *_REFRESH),
    SIGN_OUT: (*_SERVICE, Step.FORM, Step.TOKEN_NOT_EXPIRED, Step.SIGN_ON),
    "/ags/servicediscovery": _SERVICE,
    "/.well-known/jwks.json": (*_BEGIN, Step.TENANT),
    "/oauth/introspect": (*_BEGIN, Step.CLIENT),
    "/oauth/revoke": (*_BEGIN, Step.CLIENT),
}
"""CREDENTIALS stands for the steps of the strategy."""

ISSUED_TOKEN_ROUTES = frozenset({REDEEM, CHOOSE, REFRESH, SIGN_OUT})
"""Where the token is one of AGS."""

CALLERS: Mapping[str, Side] = {
    GET_SESSION_TOKEN: Side.HEAD_END,
    "/oauth/introspect": Side.RESOURCE_SERVER,
    "/oauth/revoke": Side.RESOURCE_SERVER,
    **dict.fromkeys((SIGN_ON, REDEEM, CHOOSE, REFRESH, SIGN_OUT), Side.CLIENT_APP),
}

_LATER = frozenset({Step.ADDRESS_LIMIT, Step.REQUEST, Step.AVAILABILITY, Step.STAFF})
"""Steps that no strategy makes, although they may fail anywhere."""


def list_steps(route: str, strategy: Strategy | None, failed: Step | None = None) -> tuple[Step, ...]:
    """Return the steps of a request in their order, including `failed`. `strategy`: of its service."""
    verified = strategy.steps if strategy else (Step.CREDENTIALS,)
    steps = _insert(route, verified)
    if strategy is None or strategy.parameter_schema.username is None:
        steps = tuple(step for step in steps if step is not Step.PASSWORD_LIMIT or step is failed)
    if failed is None or failed in steps:
        return steps
    if Step.CREDENTIALS in ROUTES.get(route, ()) and failed not in _LATER:
        # The strategy does not declare the step, or is not the one of that time.
        return _insert(route, (failed,))
    return (failed, *steps)


def _insert(route: str, verified: tuple[Step, ...]) -> tuple[Step, ...]:
    steps = (
        (step,) if step is not Step.CREDENTIALS else verified for step in ROUTES.get(route, (Step.REQUEST,))
    )
    return tuple(dict.fromkeys(step for group in steps for step in group))
