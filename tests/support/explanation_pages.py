"""Explanations on pages, as a reader finds them: by their headings, terms and lists."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from django.test import Client

PAGE = "/admin/ags_explanations/explainedrequest/"


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
