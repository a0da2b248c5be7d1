"""Staff in the admin: their clients, the forms that they submit, and the error pages that they see."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client

from tenants.models import Assignment


def person(group: str, *tenants: str) -> Client:
    """Return the client of a new staff user, logged in, with a group and assigned tenants."""
    user = User.objects.create_user(f"{group} of {' '.join(tenants)}", is_staff=True)
    user.groups.set(Group.objects.filter(name=group))
    for tenant in tenants:
        Assignment(tenant_id=tenant, user=user).save()
    browser = Client()
    browser.force_login(user)
    return browser


@dataclass
class ErrorPage:
    """The content of an error page."""

    title: str
    sentences: str
    back: tuple[str, str]
    """The text and the URL of the link."""
    signed_in: bool

    def __init__(self, response: Any) -> None:
        text = response.content.decode()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["x-correlation-id"] in text
        (self.title,) = re.findall("<h2[^>]*>(.*?)</h2>", text)
        self.sentences = html.unescape(" ".join(re.findall('<p class="mb-3" style[^>]*>(.*?)</p>', text)))
        rest = text.partition("Correlation ID:")[2]
        address, label = re.findall(r'<a href="([^"]*)"\s+class="[^"]*"\s*>([^<]*)</a>', rest)[0]
        self.back = (label.strip(), html.unescape(address))
        self.signed_in = "logout-form" in text


NEW_KEY_FORM: dict[str, str] = {
    "tenant": "nagra",
    "kid": "new-key",
    "algorithm": "HS256",
    "state": "active",
    "source": "generate",
}
SECRET_MARKER = "a-secret-that-nobody-may-ever-read-again"
TENANT_FORM = {
    "device_limit": "",
    "access_token_ttl": "3600",
    "refresh_token_ttl": "172800",
    "sign_on_ttl": "7776000",
    "refresh_grace": "10",
    "signing_algorithm": "ES256",
    "issuer": "ags",
    "audience": "",
    "allowed_origins": "",
    "max_failures_per_address": "5000",
    "max_sign_ons_per_account": "120",
    "exempt_networks": "",
    "event_retention": "30",
    "unused_retention": "0",
}
"""The initial values of the form."""
