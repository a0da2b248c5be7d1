"""Chromium, driven in a separate thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support.waiting import PATIENCE

ARGUMENTS = [
    "--no-sandbox",  # tests may run as root, where Chromium's sandbox refuses to
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

LIMIT = 1000 * PATIENCE
"""The timeout of each step, in milliseconds."""

expect.set_options(timeout=LIMIT)


def find_chromium() -> str:
    """Return the path of AGS_TEST_CHROMIUM, or of `chromium` on the PATH."""
    path = os.environ.get("AGS_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail(
            "No browser: install chromium, or set AGS_TEST_CHROMIUM to the path of one.", pytrace=False
        )
    return path


@dataclass
class Visit:
    """Errors and foreign requests of a page."""

    origin: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Record messages of the console, and requests to other origins."""
        page.on("console", self._record_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._record_request)

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _record_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and f"{url.scheme}://{url.netloc}" != self.origin:
            self.strangers.append(request.url)


def visit(origin: str, script: Callable[[Page], None]) -> Visit:
    """Run `script` on a new page of a new browser.

    It runs in a separate thread, because Playwright runs an event loop, and Django allows no database access
    in the thread of an event loop.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_visit, origin, script).result()


def _visit(origin: str, script: Callable[[Page], None]) -> Visit:
    seen = Visit(origin)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS, timeout=LIMIT)
        page = browser.new_page(base_url=origin, viewport={"width": 1300, "height": 850})
        page.set_default_timeout(LIMIT)
        seen.watch(page)
        script(page)
        browser.close()
    return seen
