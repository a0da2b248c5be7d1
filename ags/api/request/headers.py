"""Parsing of request headers: correlation ID, tenant, service and tokens."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from ags.api.access_log import AccessLogEntry
from ags.api.errors import HEADER_INVALID, HEADER_MISSING, HEADER_REPEATED, ApiError
from ags.sessions.exceptions import RejectReason, TokenRejected
from tenants.models import SERVICE_NAME, TENANT_ID

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_UNREPEATABLE = {
    "HTTP_X_CORRELATION_ID": "x-correlation-id",
    "HTTP_NV_TENANT_ID": "nv-tenant-id",
    "HTTP_X_AUTH_SERVICE_ID": "x-auth-service-id",
    "HTTP_TENANTID": "tenantId",
    "HTTP_AUTHORIZATION": "Authorization",
    "HTTP_USER_TOKEN": "User-Token",
    "HTTP_TRACEPARENT": "traceparent",
}


def read_correlation_id(meta: Mapping[str, Any]) -> str:
    value = meta.get("HTTP_X_CORRELATION_ID", "")
    return value if _CORRELATION_ID.fullmatch(value) else str(uuid.uuid4())


def reject_repeated_headers(meta: Mapping[str, Any]) -> None:
    """Raise ApiError (400) for them: the server joins them with a comma, which no valid value contains."""
    for variable, name in _UNREPEATABLE.items():
        if "," in meta.get(variable, ""):
            raise ApiError(HEADER_REPEATED, name=name)


def read_tenant_id(meta: Mapping[str, Any], entry: AccessLogEntry, *, allow_legacy_name: bool = False) -> str:
    """Raises ApiError (400). `allow_legacy_name`: also accept the header `tenantId`."""
    value: str = meta.get("HTTP_NV_TENANT_ID", "")
    if allow_legacy_name:
        legacy: str = meta.get("HTTP_TENANTID", "")
        if value and legacy and value != legacy:
            raise ApiError(HEADER_INVALID, name="tenantId")
        value = value or legacy
    value = value or settings.AGS_DEFAULT_TENANT
    if not value:
        raise ApiError(HEADER_MISSING, name="nv-tenant-id")
    if not TENANT_ID.search(value):
        raise ApiError(HEADER_INVALID, name="nv-tenant-id")
    entry.tenant = value
    return value


def read_service_name(meta: Mapping[str, Any], entry: AccessLogEntry) -> str:
    """Raises ApiError (400)."""
    value: str = meta.get("HTTP_X_AUTH_SERVICE_ID", "")
    if not value:
        raise ApiError(HEADER_MISSING, name="x-auth-service-id")
    if not SERVICE_NAME.search(value):
        raise ApiError(HEADER_INVALID, name="x-auth-service-id")
    entry.service = value
    return value


def read_bearer_token(meta: Mapping[str, Any], *, scheme_optional: bool = False) -> str:
    """Return the token in Authorization (RFC 6750, section 2.1). Raises `TokenRejected` if it is missing."""
    scheme, _, token = meta.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return str(token.strip())
    if scheme_optional and scheme and not token:
        return str(scheme)
    raise TokenRejected(RejectReason.TOKEN_MISSING)


def read_user_token(meta: Mapping[str, Any]) -> str:
    """Raises ApiError (400)."""
    token: str = meta.get("HTTP_USER_TOKEN", "")
    if not token:
        raise ApiError(HEADER_MISSING, name="User-Token")
    return token
