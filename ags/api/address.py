"""The address of a caller, behind as many proxies as the deployment says there are."""

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Return the caller's address.

    Each trusted proxy appends the address it heard from to X-Forwarded-For, so with n of them the caller is
    the n-th from the right; whatever stands left of it the caller may have written himself.
    """
    peer: str = request.META.get("REMOTE_ADDR", "")
    hops: list[str] = [
        hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()
    ]
    trusted: int = settings.AGS_TRUSTED_PROXIES
    if not trusted or len(hops) < trusted:
        return peer
    return hops[-trusted]
