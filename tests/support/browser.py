"""A page in a real Chromium, for the tests of the console and its screenshots. Any error of a script fails the test."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 60_000


def chromium() -> str:
    """Return the path of Chromium. Skips the test, with one line, without it or without Playwright."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)
    pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install 'planaria[console-tests]'"
    )
    return path


@contextmanager
def running_browser(path: str) -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@contextmanager
def watched_page(
    browser: "Browser",
    width: int = 1280,
    height: int = 900,
    scheme: str = "light",
    *,
    loses_console: bool = False,
) -> Iterator["Page"]:
    """Open a page; at the end no script of it has failed, and nothing was refused by the policy.

    `loses_console`: requests may fail, because the console is killed.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def on_console(message: "ConsoleMessage") -> None:
        # A refusal of the broker is an answer with the status 4xx, which Chromium reports as an error.
        is_refusal = "/api/" in message.location["url"] and "a status of 4" in message.text
        is_loss = loses_console and "net::ERR_" in message.text
        if message.type == "error" and not is_refusal and not is_loss:
            errors.append(message.text)

    page.on("console", on_console)
    yield page
    context.close()
    assert errors == []
