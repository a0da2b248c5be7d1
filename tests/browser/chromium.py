"""Finds the browser of the machine, and drives it away from the thread of the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Page, Request, expect, sync_playwright

from tests.waiting import PATIENCE

ARGUMENTS = [
    "--no-sandbox",  # tests may run as root, where Chromium's sandbox refuses to
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

LIMIT = 1000 * PATIENCE
"""Milliseconds that each step of a visit may take."""

expect.set_options(timeout=LIMIT)


def path_of_chromium() -> str:
    """Return the path of AGS_TEST_CHROMIUM, or of `chromium` on the PATH."""
    path = os.environ.get("AGS_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail(
            "No browser: install chromium, or set AGS_TEST_CHROMIUM to the path of one.", pytrace=False
        )
    return path


@dataclass
class Visit:
    """What a visit noticed beside what it looked at."""

    origin: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note what the console says and who else is asked for something."""
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and f"{url.scheme}://{url.netloc}" != self.origin:
            self.strangers.append(request.url)


def visit(origin: str, script: Callable[[Page], None]) -> Visit:
    """Run `script` on a new page of a new browser.

    In a thread of its own: Playwright runs an event loop there, and Django refuses the database in a thread
    that has one.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_visit, origin, script).result()


def _visit(origin: str, script: Callable[[Page], None]) -> Visit:
    seen = Visit(origin)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path_of_chromium(), args=ARGUMENTS, timeout=LIMIT
        )
        page = browser.new_page(base_url=origin, viewport={"width": 1300, "height": 850})
        page.set_default_timeout(LIMIT)
        seen.watch(page)
        script(page)
        browser.close()
    return seen
