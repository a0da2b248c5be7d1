"""Every refusal: the table of all codes, and the one place that turns an exception into an answer."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.db.utils import DatabaseError, InterfaceError, OperationalError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseForbidden,
    UnreadablePostError,
)
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from rest_framework.exceptions import MethodNotAllowed

from ags.api.access_log import AccessLogEntry, get_log_entry
from ags.api.response import Response
from ags.database.django_connections import NOT_READY
from ags.database.threads import WaitedTooLong
from ags.sessions.exceptions import InvalidReason, NoActiveSigningKey, RejectReason, TokenRejected
from providers.contract import FailureReason, UpstreamUnavailable, VerificationFailed

log = logging.getLogger(__name__)

LOCKED_OUT = int(settings.AXES_COOLOFF_TIME * 3600)
"""Seconds from the last attempt for which a person who has failed to log in too often is locked out."""

BASIC_CHALLENGE = 'Basic realm="ags", charset="UTF-8"'

# What goes with every refusal of a status.
HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Bearer realm="ags"'},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": str(LOCKED_OUT)},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


@dataclass(frozen=True, slots=True)
class Error:
    """A line of the registry. `code` and `reason` never change once published.

    `oauth` is the word of RFC 6749 section 5.2 for it, where the standard's own clients meet it.
    """

    code: int
    status: HTTPStatus
    reason: str
    message: str
    oauth: str = ""


def _error(code: int, reason: str, message: str, oauth: str = "") -> Error:
    return Error(code, HTTPStatus(code // 100), reason, message, oauth)


def _published(code: int, reason: str, message: str) -> Error:
    """Make a line with a number that published client apps know: always 403."""
    return Error(code, HTTPStatus.FORBIDDEN, reason, message)


ACCOUNT_CANCELLED = _published(20001, "account_cancelled", "The account is cancelled.")
ACCOUNT_SUSPENDED = _published(20002, "account_suspended", "The account is suspended.")
DEVICE_UNKNOWN = _published(20003, "device_unknown", "The device is deleted or unknown: sign on afresh.")
DEVICE_DISABLED = _published(20004, "device_disabled", "The device is disabled.")
DEVICE_LIMIT_REACHED = _published(
    20007, "device_limit_reached", "The account has as many devices as it may have."
)
REQUEST_MALFORMED = _error(40000, "request_malformed", "The request is not valid HTTP.")
HEADER_MISSING = _error(40001, "header_missing", "The header {name} is missing.")
HEADER_INVALID = _error(40002, "header_invalid", "The header {name} is not of the documented form.")
HEADER_REPEATED = _error(40003, "header_repeated", "The header {name} is sent twice, or holds a comma.")
HOST_INVALID = _error(40004, "host_invalid", "The Host header names no host of this service.")
BODY_MALFORMED = _error(40005, "body_malformed", "The body is not a strict JSON object: {problem}.")
PARAMETERS_MALFORMED = _error(
    40006,
    "parameters_malformed",
    'The member parameters must be an array of {{"name": string, "value": string}}.',
)
PARAMETER_UNKNOWN = _error(40007, "parameter_unknown", "The service declares no parameter of this name.")
PARAMETER_REPEATED = _error(40008, "parameter_repeated", "The parameter is given twice.")
PARAMETER_MISSING = _error(40009, "parameter_missing", "A mandatory parameter is missing.")
PARAMETER_INVALID = _error(
    40010, "parameter_invalid", "The value of the parameter is not a string of the declared length."
)
SIGN_ON_MALFORMED = _error(
    40011,
    "sign_on_malformed",
    "The body must have either clientId (a string) or deviceInformation (an object).",
)
FORM_MALFORMED = _error(40012, "form_malformed", "The body must be a form with one token.", "invalid_request")
CLIENT_AUTHENTICATION_REPEATED = _error(
    40013,
    "client_authentication_repeated",
    "The client must authenticate either by the Authorization header or by client_secret in the form.",
    "invalid_request",
)
NOT_AUTHENTICATED = _error(
    40100, "not_authenticated", "What was presented proves nothing, or nothing any more."
)
TYPE_MISMATCH = _error(40101, "type_mismatch", "The token is of another type: look at the claim typ.")
AUDIENCE_MISMATCH = _error(
    40102, "audience_mismatch", "The token is meant for another audience: look at the claim aud."
)
CLAIM_MISSING = _error(40103, "claim_missing", "The token lacks the claim {name}.")
TOKEN_EXPIRED = _error(40104, "token_expired", "The token has expired.")
TOKEN_NOT_YET_VALID = _error(
    40105, "token_not_yet_valid", "The token is not valid yet: look at the claim {name}."
)
CLAIM_INVALID = _error(40106, "claim_invalid", "The token has a claim of the wrong form: {name}.")
REPLAYED = _error(40107, "replayed", "The token has been used before.")
LIFETIME_TOO_LONG = _error(40108, "lifetime_too_long", "The token expires later than the service allows.")
PAYLOAD_MALFORMED = _error(
    40109, "payload_malformed", "The payload of the token is not a strict JSON object."
)
CLIENT_NOT_AUTHENTICATED = _error(
    40111,
    "client_not_authenticated",
    "The client ID and secret are not those of a resource server.",
    "invalid_client",
)
ISSUER_MISMATCH = _error(40112, "issuer_mismatch", "The token is from another issuer.")
AUTHORIZED_PARTY_MISMATCH = _error(
    40113, "authorized_party_mismatch", "The token was issued to another client."
)
NONCE_MISMATCH = _error(40114, "nonce_mismatch", "The token is for another nonce.")
CLAIM_MISMATCH = _error(
    40115, "claim_mismatch", "The token has another value in the claim {name} than the service demands."
)
SERVICE_NOT_AVAILABLE = _error(40300, "service_not_available", "The tenant does not offer this service.")
TENANT_MISMATCH = _error(40301, "tenant_mismatch", "The token is for another tenant.")
NOT_PERMITTED = _error(
    40302,
    "not_permitted",
    "You do not have permission to do this.",
)
ACCOUNT_AMBIGUOUS = _error(
    40303, "account_ambiguous", "The proof names several accounts, and nobody can choose one here."
)
FORM_EXPIRED = _error(
    40304, "form_expired", "The form has expired. Load its page again, and send it once more."
)
ORIGIN_MISMATCH = _error(
    40305,
    "origin_mismatch",
    "The form comes from another site, or a proxy changes the Host or X-Forwarded-Proto header.",
)
NOT_FOUND = _error(40400, "not_found", "There is nothing at this address.")
NO_SERVICES = _error(40401, "no_services", "The tenant offers no service.")
NO_KEY_SET = _error(40402, "no_key_set", "There is no such tenant.")
METHOD_NOT_ALLOWED = _error(40500, "method_not_allowed", "The address does not answer this method.")
BODY_TOO_LARGE = _error(
    41300,
    "body_too_large",
    "The body is larger than 64 KiB, or a form of staff than 2.5 MiB or 1,000 fields.",
)
URI_TOO_LONG = _error(41400, "uri_too_long", "The request line is too long.")
UNSUPPORTED_MEDIA_TYPE = _error(
    41500,
    "unsupported_media_type",
    "The body must be uncompressed application/json in UTF-8.",
)
FORM_EXPECTED = _error(
    41501, "form_expected", "The body must be an uncompressed form in UTF-8.", "invalid_request"
)
RANGE_NOT_SATISFIABLE = _error(41600, "range_not_satisfiable", "The file has no such range of bytes.")
EXPECTATION_FAILED = _error(
    41700, "expectation_failed", "The Expect header asks for what this server does not do."
)
TOO_MANY_LOGINS = _error(
    42900, "too_many_logins", f"Too many logins have failed. Try again in {LOCKED_OUT // 60} minutes."
)
TOO_MANY_REFRESHES = _error(
    42901,
    "too_many_refreshes",
    "Too many refreshes in a short time. Retry after the seconds in the Retry-After header.",
)
HEADERS_TOO_LARGE = _error(43100, "headers_too_large", "The headers are too large, or too many.")
INTERNAL_ERROR = _error(50000, "internal_error", "Something went wrong on our side.")
NOT_IMPLEMENTED = _error(50100, "not_implemented", "The transfer coding is not known here.")
UNAVAILABLE = _error(50300, "unavailable", "The service is away for a moment. Try again.")

REGISTRY: tuple[Error, ...] = tuple(value for value in vars().values() if isinstance(value, Error))
"""All of them, in the order of their codes."""

# What a status means where nothing but the status is known: the first line that has it, as a rule.
BARE = {error.status: error for error in reversed(REGISTRY)} | {HTTPStatus.FORBIDDEN: NOT_PERMITTED}

# What the caller is told of a refusal. What is not here came before anything was proven: one answer for all.
PROVEN = {
    FailureReason.PAYLOAD_MALFORMED: PAYLOAD_MALFORMED,
    FailureReason.TYPE_MISMATCH: TYPE_MISMATCH,
    FailureReason.AUDIENCE_MISMATCH: AUDIENCE_MISMATCH,
    FailureReason.CLAIM_MISSING: CLAIM_MISSING,
    FailureReason.CLAIM_INVALID: CLAIM_INVALID,
    FailureReason.TOKEN_EXPIRED: TOKEN_EXPIRED,
    FailureReason.TOKEN_NOT_YET_VALID: TOKEN_NOT_YET_VALID,
    FailureReason.LIFETIME_TOO_LONG: LIFETIME_TOO_LONG,
    FailureReason.REPLAYED: REPLAYED,
    FailureReason.TENANT_MISMATCH: TENANT_MISMATCH,
    FailureReason.ISSUER_MISMATCH: ISSUER_MISMATCH,
    FailureReason.AUTHORIZED_PARTY_MISMATCH: AUTHORIZED_PARTY_MISMATCH,
    FailureReason.NONCE_MISMATCH: NONCE_MISMATCH,
    FailureReason.CLAIM_MISMATCH: CLAIM_MISMATCH,
    FailureReason.ACCOUNT_AMBIGUOUS: ACCOUNT_AMBIGUOUS,
    FailureReason.ACCOUNT_SUSPENDED: ACCOUNT_SUSPENDED,
    FailureReason.ACCOUNT_CANCELLED: ACCOUNT_CANCELLED,
}

# What the framework raises; the first that fits.
RAISED: dict[tuple[type[BaseException], ...], Error] = {
    (Http404,): NOT_FOUND,
    (MethodNotAllowed,): METHOD_NOT_ALLOWED,
    (DisallowedHost,): HOST_INVALID,
    (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent): BODY_TOO_LARGE,
    (SuspiciousOperation, BadRequest, MultiPartParserError, UnreadablePostError): REQUEST_MALFORMED,
}


# What a client app is told of a denial. What is not here is one answer for all.
DENIED: Mapping[RejectReason | InvalidReason, Error] = {
    InvalidReason.ACCOUNT_CANCELLED: ACCOUNT_CANCELLED,
    InvalidReason.ACCOUNT_SUSPENDED: ACCOUNT_SUSPENDED,
    InvalidReason.DEVICE_DELETED: DEVICE_UNKNOWN,
    InvalidReason.DEVICE_DISABLED: DEVICE_DISABLED,
    RejectReason.DEVICE_UNKNOWN: DEVICE_UNKNOWN,
    RejectReason.DEVICE_LIMIT_REACHED: DEVICE_LIMIT_REACHED,
    RejectReason.TOO_MANY_REFRESHES: TOO_MANY_REFRESHES,
    InvalidReason.TENANT_NOT_AVAILABLE: SERVICE_NOT_AVAILABLE,
    InvalidReason.SERVICE_NOT_AVAILABLE: SERVICE_NOT_AVAILABLE,
}


class ApiError(Exception):
    """Raised by the API for a refusal of the registry.

    `parameter` names the parameter at fault; `why` is the precise reason for the log, where it may
    not be told; `retry_after` replaces the seconds of the status; `words` fill the message.
    """

    def __init__(
        self,
        error: Error,
        *,
        parameter: str | None = None,
        why: str | None = None,
        retry_after: int | None = None,
        **words: str,
    ) -> None:
        super().__init__(error.reason)
        self.error = error
        self.parameter = parameter
        self.why = why or error.reason
        self.retry_after = retry_after
        self.message = error.message.format(**words)


def as_api_error(exception: BaseException) -> ApiError:
    """Find the line of the registry for any exception."""
    match exception:
        case ApiError():
            return exception
        case VerificationFailed(reason=reason, claim=claim):
            error = PROVEN.get(reason, NOT_AUTHENTICATED)
            return ApiError(error, why=reason.value, name=claim or "")
        case UpstreamUnavailable(failure=failure):
            return ApiError(UNAVAILABLE, why=failure.value)
        case NoActiveSigningKey():
            return ApiError(UNAVAILABLE, why="no_signing_key")
        case TokenRejected(reason=reason, retry_after=retry_after):
            error = DENIED.get(reason, NOT_AUTHENTICATED)
            return ApiError(error, why=reason.value, retry_after=retry_after)
        case DatabaseError() | InterfaceError() if _is_away(exception):
            waited = isinstance(exception, WaitedTooLong)
            return ApiError(UNAVAILABLE, why="waited_too_long" if waited else "database_unavailable")
    for kinds, error in RAISED.items():
        if isinstance(exception, kinds):
            return ApiError(error)
    return ApiError(INTERNAL_ERROR, why=type(exception).__name__)


def _is_away(exception: BaseException) -> bool:
    sqlstate = getattr(exception.__cause__, "sqlstate", None)
    return isinstance(exception, OperationalError | InterfaceError) or sqlstate in NOT_READY


class RefusalResponse(Response):
    """The one JSON shape of a refusal."""

    error: Error
    correlation_id: str


def respond(exception: BaseException, entry: AccessLogEntry) -> RefusalResponse:
    """Answer any exception with the one JSON shape of a refusal, and note the precise reason for the log."""
    refusal = as_api_error(exception)
    error = refusal.error
    entry.reason = refusal.why
    body: dict[str, Any] = {"code": error.code, "reason": error.reason, "message": refusal.message}
    if error.oauth:
        body |= {"error": error.oauth, "error_description": refusal.message}
    if refusal.parameter is not None:
        body["parameter"] = refusal.parameter
    body["correlationId"] = entry.correlation_id
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log_crash(exception, entry)
    response = RefusalResponse(body, error.status)
    for name, value in HEADERS.get(error.status, {}).items():
        response[name] = value
    response.error, response.correlation_id = error, entry.correlation_id
    if error is CLIENT_NOT_AUTHENTICATED:
        response["WWW-Authenticate"] = BASIC_CHALLENGE
    if refusal.retry_after is not None:
        response["Retry-After"] = str(refusal.retry_after)
    return response


def bare(status: int) -> Error:
    """Return what the registry says to a status of which nothing else is known."""
    return BARE.get(HTTPStatus(status), REQUEST_MALFORMED if status < 500 else INTERNAL_ERROR)


def translated(response: HttpResponseBase, entry: AccessLogEntry) -> RefusalResponse:
    """Return in the one JSON shape what a part of the framework refused in a shape of its own."""
    refusal = respond(entry.crash or ApiError(bare(response.status_code)), entry)
    for name in ("Allow", "Content-Range"):
        if name in response:
            refusal[name] = response[name]
    return refusal


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form without the right CSRF token (Django's setting CSRF_FAILURE_VIEW)."""
    # `reason` may repeat what the browser sent; only its first word is looked at.
    is_foreign = reason.startswith(("Origin ", "Referer "))
    get_log_entry(request).crash = ApiError(ORIGIN_MISMATCH if is_foreign else FORM_EXPIRED)
    return HttpResponseForbidden()


def exception_handler(exception: Exception, context: dict[str, Any]) -> HttpResponse:
    """Answer what a view raised (the DRF setting EXCEPTION_HANDLER)."""
    response = respond(exception, get_log_entry(context["request"]))
    if isinstance(exception, MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def log_crash(exception: BaseException, entry: AccessLogEntry) -> None:
    """Log the place, but not the message: that may repeat what the caller sent."""
    log.error(
        "crash",
        extra={
            "correlation_id": entry.correlation_id,
            "exception": type(exception).__qualname__,
            "traceback": "".join(traceback.format_tb(exception.__traceback__)),
        },
    )
