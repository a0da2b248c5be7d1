"""Explanations on pages, as a reader finds them: by their headings, terms and lists."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from django.test import Client
from django.utils import timezone

from ags.explanations.links import LIFETIME
from ags.explanations.models import ExplanationLink
from ags.sessions.models import Event
from tests.support.audit_search import add_event

PAGE = "/admin/ags_explanations/explainedrequest/"
LINKS = "/admin/ags_explanations/explanationlink/"
ADD = f"{LINKS}add/"
BUTTON = "Create a link for the other company"


@dataclass
class ShownExplanation:
    cause: str
    fault: dict[str, str]
    checks: list[tuple[str, str]]
    head: dict[str, str]


@dataclass
class ExplanationPage:
    response: Any
    text: str
    headings: list[str]
    explanations: list[ShownExplanation]

    def __init__(self, response: Any) -> None:
        assert response.status_code == 200
        self.response, self.text = response, response.content.decode()
        parts = self.text.split('<div class="explanation">')[1:]
        self.explanations = [_read(part.partition("</section>")[0]) for part in parts]
        headings = re.findall("<h2[^>]*>([^<]*)</h2>", self.text)
        self.headings = [html.unescape(heading) for heading in headings]


def explain_on_page(browser: Client, correlation_id: str) -> ExplanationPage:
    """Enter the correlation ID in the form."""
    return ExplanationPage(browser.post(PAGE, {"correlation_id": correlation_id}, follow=True))


def find_events(page: ExplanationPage) -> list[str]:
    """Return the events of the buttons that create links."""
    assert page.text.count(BUTTON) == page.text.count(f'action="{ADD}"')
    return re.findall('name="event" value="([^"]*)"', page.text)


def _read(part: str) -> ShownExplanation:
    (cause,) = re.findall('<p class="cause">(.*?)</p>', part)
    fault = part.partition('<dl class="fault">')[2].partition("</dl>")[0]
    checks = re.findall(r"<li[^>]*><span>(.*?)</span> (.*?)</li>", part)
    head = part.partition("<h3>Request</h3>")[2]
    return ShownExplanation(html.unescape(cause), _read_terms(fault), checks, _read_terms(head))


def _read_terms(part: str) -> dict[str, str]:
    return {
        html.unescape(label): html.unescape(value)
        for label, value in re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", part)
    }


def add_refusal(tenant_id: str | None = "nagra", correlation_id: str = "call-9", **fields: Any) -> Event:
    details = {
        "method": "POST",
        "route": "/ags/getSessionToken",
        "status": 401,
        "code": 40104,
        "message": "The token has expired.",
        "facts": {"name": "exp", "exp": -312, "skew": 30},
    }
    values = {
        "reason": "token_expired",
        "service": "Customer Auth Service",
        "kid": "nagra-key-1",
        "client_address": "198.51.100.7",
        "account_id": "account-4711",
        "details": details,
    }
    return add_event(tenant_id, correlation_id=correlation_id, **values | fields)


def create_explanation_link(tenant_id: str, event: str = "event:0", **fields: Any) -> ExplanationLink:
    """Store a link that is valid."""
    values = {"correlation_id": "call-9", "created_by": "anna", "expires_at": timezone.now() + LIFETIME}
    link: ExplanationLink = ExplanationLink.unscoped.create(
        tenant_id=tenant_id, event=event, **values | fields
    )
    return link


def create_link_to_refusal() -> ExplanationLink:
    return create_explanation_link("nagra", f"event:{add_refusal().pk}", correlation_id="call-9")
