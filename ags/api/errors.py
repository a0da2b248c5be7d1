"""The registry of API errors, and the conversion of exceptions into error responses."""

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
from django.db.utils import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from rest_framework.exceptions import MethodNotAllowed

from ags.api.access_log import AccessLogEntry, get_log_entry
from ags.api.responses import Response
from ags.database.errors import is_unavailable
from ags.database.threads import QueueTimeout
from ags.sessions.exceptions import InvalidReason, NoActiveSigningKey, RejectReason, TokenRejected
from providers.contract import FailureReason, UpstreamUnavailable, VerificationFailed, clean_fact

log = logging.getLogger(__name__)

LOCKOUT_SECONDS = int(settings.AXES_COOLOFF_TIME * 3600)
"""Seconds from the last attempt for which a person is locked out after too many failed logins."""

MAX_PROBLEM_LENGTH = 200
"""Characters of the message about an upstream in the audit trail."""

BASIC_CHALLENGE = 'Basic realm="ags", charset="UTF-8"'

STATUS_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Bearer realm="ags"'},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": str(LOCKOUT_SECONDS)},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


@dataclass(frozen=True, slots=True)
class Error:
    """`code` and `reason` never change once published. `oauth_error`: that of RFC 6749, section 5.2."""

    code: int
    status: HTTPStatus
    reason: str
    message: str
    oauth_error: str = ""


def _error(code: int, reason: str, message: str, oauth_error: str = "") -> Error:
    """Published client apps handle the codes below 40000; their status is always 403."""
    status = HTTPStatus.FORBIDDEN if code < 40000 else HTTPStatus(code // 100)
    return Error(code, status, reason, message, oauth_error)


ACCOUNT_CANCELLED = _error(20001, "account_cancelled", "The account is cancelled.")
ACCOUNT_SUSPENDED = _error(20002, "account_suspended", "The account is suspended.")
DEVICE_UNKNOWN = _error(20003, "device_unknown", "The device is unknown or has been deleted. Sign on again.")
DEVICE_DISABLED = _error(20004, "device_disabled", "The device is disabled.")
DEVICE_LIMIT_REACHED = _error(
    20007, "device_limit_reached", "The account has reached its maximum number of devices."
)
REQUEST_MALFORMED = _error(40000, "request_malformed", "The request is not valid HTTP.")
HEADER_MISSING = _error(40001, "header_missing", "The header {name} is missing.")
HEADER_INVALID = _error(40002, "header_invalid", "The header {name} does not have the documented format.")
HEADER_REPEATED = _error(
    40003, "header_repeated", "The header {name} occurs more than once or contains a comma."
)
HOST_INVALID = _error(40004, "host_invalid", "The Host header does not name a host of this service.")
BODY_MALFORMED = _error(40005, "body_malformed", "The body is not a strict JSON object: {problem}.")
PARAMETERS_MALFORMED = _error(
    40006,
    "parameters_malformed",
    'The member parameters must be an array of {{"name": string, "value": string}}.',
)
PARAMETER_UNKNOWN = _error(
    40007, "parameter_unknown", "The service does not declare a parameter with this name."
)
PARAMETER_REPEATED = _error(40008, "parameter_repeated", "The parameter occurs more than once.")
PARAMETER_MISSING = _error(40009, "parameter_missing", "A mandatory parameter is missing.")
PARAMETER_INVALID = _error(
    40010, "parameter_invalid", "The value of the parameter is not a string of the declared length."
)
SIGN_ON_MALFORMED = _error(
    40011,
    "sign_on_malformed",
    "The body must contain either clientId (a string) or deviceInformation (an object).",
)
FORM_MALFORMED = _error(40012, "form_malformed", "The body must be a form with one token.", "invalid_request")
CLIENT_AUTHENTICATION_REPEATED = _error(
    40013,
    "client_authentication_repeated",
    "The client must authenticate with either the Authorization header or client_secret in the form.",
    "invalid_request",
)
NOT_AUTHENTICATED = _error(40100, "not_authenticated", "The credentials are invalid or have expired.")
TYPE_MISMATCH = _error(40101, "type_mismatch", "The token has another type. Check the claim typ.")
AUDIENCE_MISMATCH = _error(
    40102, "audience_mismatch", "The token is for another audience. Check the claim aud."
)
CLAIM_MISSING = _error(40103, "claim_missing", "The token lacks the claim {name}.")
TOKEN_EXPIRED = _error(40104, "token_expired", "The token has expired.")
TOKEN_NOT_YET_VALID = _error(
    40105, "token_not_yet_valid", "The token is not valid yet. Check the claim {name}."
)
CLAIM_INVALID = _error(40106, "claim_invalid", "The claim {name} of the token has an invalid value.")
REPLAYED = _error(40107, "replayed", "The token has already been used.")
LIFETIME_TOO_LONG = _error(40108, "lifetime_too_long", "The token expires later than the service allows.")
PAYLOAD_MALFORMED = _error(
    40109, "payload_malformed", "The payload of the token is not a strict JSON object."
)
CLIENT_NOT_AUTHENTICATED = _error(
    40111, "client_not_authenticated", "The client ID or the client secret is invalid.", "invalid_client"
)
ISSUER_MISMATCH = _error(40112, "issuer_mismatch", "The token was issued by another issuer.")
AUTHORIZED_PARTY_MISMATCH = _error(
    40113, "authorized_party_mismatch", "The token was issued to another client."
)
NONCE_MISMATCH = _error(40114, "nonce_mismatch", "The token has another nonce.")
CLAIM_MISMATCH = _error(
    40115,
    "claim_mismatch",
    "The claim {name} of the token does not have the value that the service requires.",
)
SERVICE_NOT_AVAILABLE = _error(40300, "service_not_available", "The tenant does not offer this service.")
TENANT_MISMATCH = _error(40301, "tenant_mismatch", "The token is for another tenant.")
NOT_PERMITTED = _error(40302, "not_permitted", "You do not have permission to do this.")
ACCOUNT_AMBIGUOUS = _error(
    40303,
    "account_ambiguous",
    "The credentials match more than one account; this endpoint cannot choose between them.",
)
FORM_EXPIRED = _error(40304, "form_expired", "The form has expired. Reload the page and try again.")
ORIGIN_MISMATCH = _error(
    40305,
    "origin_mismatch",
    "The form comes from another site, or a proxy changes the Host or X-Forwarded-Proto header.",
)
NOT_FOUND = _error(40400, "not_found", "There is no resource at this URL.")
NO_SERVICES = _error(40401, "no_services", "The tenant offers no services.")
NO_KEY_SET = _error(40402, "no_key_set", "There is no such tenant.")
METHOD_NOT_ALLOWED = _error(40500, "method_not_allowed", "This URL does not support the method.")
BODY_TOO_LARGE = _error(
    41300,
    "body_too_large",
    "The body exceeds 64 KiB, or a form of the admin exceeds 2.5 MiB or 1,000 fields.",
)
URI_TOO_LONG = _error(41400, "uri_too_long", "The request line is too long.")
UNSUPPORTED_MEDIA_TYPE = _error(
    41500, "unsupported_media_type", "The body must be uncompressed application/json in UTF-8."
)
FORM_EXPECTED = _error(
    41501, "form_expected", "The body must be an uncompressed form in UTF-8.", "invalid_request"
)
RANGE_NOT_SATISFIABLE = _error(
    41600, "range_not_satisfiable", "The file does not contain the requested range of bytes."
)
EXPECTATION_FAILED = _error(
    41700, "expectation_failed", "The server does not support the value of the Expect header."
)
TOO_MANY_LOGINS = _error(
    42900, "too_many_logins", "Too many failed logins. Retry-After contains the seconds to wait."
)
TOO_MANY_REFRESHES = _error(
    42901,
    "too_many_refreshes",
    "Too many refreshes in a short time. Retry-After contains the seconds to wait.",
)
TOO_MANY_FAILURES = _error(
    42902,
    "too_many_failures",
    "Too many refused requests from this address. Retry-After contains the seconds to wait.",
)
TOO_MANY_SIGN_ONS = _error(
    42903,
    "too_many_sign_ons",
    "Too many sign-ons of this account in a short time. Retry-After contains the seconds to wait.",
)
TOO_MANY_PASSWORD_FAILURES = _error(
    42904,
    "too_many_password_failures",
    "Too many wrong passwords. Retry-After contains the seconds to wait.",
)
TOO_MANY_PASSWORDS = _error(
    42905,
    "too_many_passwords",
    "Too many passwords are being verified at the same time. Retry-After contains the seconds to wait.",
)
TOO_MANY_OPENINGS = _error(
    42906,
    "too_many_openings",
    "The link was opened too often in a short time. Retry-After contains the seconds to wait.",
)
HEADERS_TOO_LARGE = _error(43100, "headers_too_large", "The headers are too large or too many.")
INTERNAL_ERROR = _error(50000, "internal_error", "An internal error occurred.")
NOT_IMPLEMENTED = _error(50100, "not_implemented", "Unsupported Transfer-Encoding.")
UNAVAILABLE = _error(50300, "unavailable", "The service is temporarily unavailable. Retry later.")

REGISTRY: tuple[Error, ...] = tuple(value for value in vars().values() if isinstance(value, Error))
"""All errors, in the order of their codes."""

# For errors of which only the status is known: normally the first entry with that status.
ERRORS_BY_STATUS = {error.status: error for error in reversed(REGISTRY)} | {
    HTTPStatus.FORBIDDEN: NOT_PERMITTED
}

# Failures of credentials whose signature or password is valid. All others become NOT_AUTHENTICATED, so that
# an unauthenticated caller learns no details.
ERRORS_BY_FAILURE_REASON = {
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

# Exceptions of Django and DRF; the first match applies.
ERRORS_BY_EXCEPTION: dict[tuple[type[BaseException], ...], Error] = {
    (Http404,): NOT_FOUND,
    (MethodNotAllowed,): METHOD_NOT_ALLOWED,
    (DisallowedHost,): HOST_INVALID,
    (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent): BODY_TOO_LARGE,
    (SuspiciousOperation, BadRequest, MultiPartParserError, UnreadablePostError): REQUEST_MALFORMED,
}

# All other reasons become NOT_AUTHENTICATED.
ERRORS_BY_REJECT_REASON: Mapping[RejectReason | InvalidReason, Error] = {
    InvalidReason.ACCOUNT_CANCELLED: ACCOUNT_CANCELLED,
    InvalidReason.ACCOUNT_SUSPENDED: ACCOUNT_SUSPENDED,
    InvalidReason.DEVICE_DELETED: DEVICE_UNKNOWN,
    InvalidReason.DEVICE_DISABLED: DEVICE_DISABLED,
    RejectReason.DEVICE_UNKNOWN: DEVICE_UNKNOWN,
    RejectReason.DEVICE_LIMIT_REACHED: DEVICE_LIMIT_REACHED,
    RejectReason.TOO_MANY_REFRESHES: TOO_MANY_REFRESHES,
    RejectReason.TOO_MANY_SIGN_ONS: TOO_MANY_SIGN_ONS,
    InvalidReason.TENANT_NOT_AVAILABLE: SERVICE_NOT_AVAILABLE,
    InvalidReason.SERVICE_NOT_AVAILABLE: SERVICE_NOT_AVAILABLE,
}


class ApiError(Exception):
    """An error response of the registry.

    `parameter` names the invalid parameter. `log_reason` is the exact reason, for the log only. `retry_after`
    (seconds) replaces the default of the status. `message_args` are the placeholders of the message. `facts`
    explain the error, for the audit trail only: JSON values without secrets and unlimited input.
    """

    def __init__(
        self,
        error: Error,
        *,
        parameter: str | None = None,
        log_reason: str | None = None,
        retry_after: int | None = None,
        facts: Mapping[str, Any] | None = None,
        **message_args: str,
    ) -> None:
        super().__init__(error.reason)
        self.error = error
        self.parameter = parameter
        self.log_reason = log_reason or error.reason
        self.retry_after = retry_after
        self.message = error.message.format(**message_args)
        given = {**message_args, "retry_after": retry_after, **(facts or {})}
        self.facts = {name: value for name, value in given.items() if value not in (None, "")}


def as_api_error(exception: BaseException) -> ApiError:
    match exception:
        case ApiError():
            return exception
        case VerificationFailed(reason=reason, claim=claim, facts=facts):
            error = ERRORS_BY_FAILURE_REASON.get(reason, NOT_AUTHENTICATED)
            return ApiError(error, log_reason=reason.value, facts=facts, name=claim or "")
        case UpstreamUnavailable(failure=failure):
            facts = {"problem": clean_fact(str(exception), MAX_PROBLEM_LENGTH)}
            return ApiError(UNAVAILABLE, log_reason=failure.value, facts=facts)
        case NoActiveSigningKey():
            return ApiError(UNAVAILABLE, log_reason="no_signing_key")
        case TokenRejected(reason=reason, retry_after=retry_after):
            error = ERRORS_BY_REJECT_REASON.get(reason, NOT_AUTHENTICATED)
            return ApiError(error, log_reason=reason.value, retry_after=retry_after)
        case DatabaseError() | InterfaceError() if is_unavailable(exception):
            waited = isinstance(exception, QueueTimeout)
            return ApiError(UNAVAILABLE, log_reason="waited_too_long" if waited else "database_unavailable")
    for kinds, error in ERRORS_BY_EXCEPTION.items():
        if isinstance(exception, kinds):
            return ApiError(error)
    return ApiError(INTERNAL_ERROR, log_reason=type(exception).__name__)


class ErrorResponse(Response):
    """The JSON body of an error (`ErrorSerializer`)."""

    error: Error
    message: str
    correlation_id: str


def error_response(exception: BaseException, entry: AccessLogEntry) -> ErrorResponse:
    api_error = as_api_error(exception)
    error = api_error.error
    entry.reason, entry.facts = api_error.log_reason, api_error.facts
    body: dict[str, Any] = {"code": error.code, "reason": error.reason, "message": api_error.message}
    if error.oauth_error:
        body |= {"error": error.oauth_error, "error_description": api_error.message}
    if api_error.parameter is not None:
        body["parameter"] = api_error.parameter
    body["correlationId"] = entry.correlation_id
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log_crash(exception, entry)
    response = ErrorResponse(body, error.status)
    for name, value in STATUS_HEADERS.get(error.status, {}).items():
        response[name] = value
    response.error, response.message = error, api_error.message
    response.correlation_id = entry.correlation_id
    if error is CLIENT_NOT_AUTHENTICATED:
        response["WWW-Authenticate"] = BASIC_CHALLENGE
    if api_error.retry_after is not None:
        response["Retry-After"] = str(api_error.retry_after)
    return response


def error_for_status(status: int) -> Error:
    return ERRORS_BY_STATUS.get(HTTPStatus(status), REQUEST_MALFORMED if status < 500 else INTERNAL_ERROR)


def convert_error_response(response: HttpResponseBase, entry: AccessLogEntry) -> ErrorResponse:
    converted = error_response(entry.exception or ApiError(error_for_status(response.status_code)), entry)
    for name in ("Allow", "Content-Range"):
        if name in response:
            converted[name] = response[name]
    return converted


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For Django's setting CSRF_FAILURE_VIEW."""
    # Only the first word is used: `reason` may repeat input of the browser.
    is_cross_origin = reason.startswith(("Origin ", "Referer "))
    get_log_entry(request).exception = ApiError(ORIGIN_MISMATCH if is_cross_origin else FORM_EXPIRED)
    return HttpResponseForbidden()


def exception_handler(exception: Exception, context: dict[str, Any]) -> HttpResponse:
    """For DRF's setting EXCEPTION_HANDLER."""
    response = error_response(exception, get_log_entry(context["request"]))
    if isinstance(exception, MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def log_crash(exception: BaseException, entry: AccessLogEntry) -> None:
    """Log the type and the stack of an exception; its message may repeat input of the caller."""
    log.error(
        "crash",
        extra={
            "correlation_id": entry.correlation_id,
            "exception": type(exception).__qualname__,
            "traceback": "".join(traceback.format_tb(exception.__traceback__)),
        },
    )
