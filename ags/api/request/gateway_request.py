"""The request class of the API."""

from functools import lru_cache
from io import BytesIO
from typing import Any

from django.conf import settings
from django.http import HttpRequest, QueryDict, parse_cookie
from django.http.request import split_domain_port, validate_host
from django.utils.functional import cached_property


class GatewayRequest(HttpRequest):
    """A Django request without encodings, uploads and streaming, which the API does not use.

    `body` is the complete body. Like Django's WSGIRequest, this class does not call `HttpRequest.__init__`,
    which creates the objects that the cached properties create on demand.
    """

    resolver_match = None
    body = b""

    def __init__(self, meta: dict[str, Any], body: bytes) -> None:
        self.META = meta
        self.method = meta["REQUEST_METHOD"]
        # Decoded as Django does; a path that is not UTF-8 matches no URL pattern.
        self.path = self.path_info = meta["PATH_INFO"].encode("latin-1").decode(errors="replace")
        self.body = body

    def get_host(self) -> str:
        host: str = self.META.get("HTTP_HOST", "")
        return host if _is_allowed(host, tuple(settings.ALLOWED_HOSTS)) else super().get_host()

    @cached_property
    def GET(self) -> Any:  # type: ignore[override] # noqa: N802 - Django's name
        return QueryDict(self.META["QUERY_STRING"])

    @cached_property
    def COOKIES(self) -> Any:  # type: ignore[override] # noqa: N802 - Django's name
        return parse_cookie(self.META.get("HTTP_COOKIE", ""))

    @cached_property
    def _stream(self) -> Any:  # type: ignore[override]
        return BytesIO(self.body)


@lru_cache(maxsize=256)
def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
