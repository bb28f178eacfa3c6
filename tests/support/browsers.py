"""A real browser for tests of pages: Debian's chromium, driven by playwright, started once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
MISSING = "needs chromium (apt-get install chromium), playwright and axe-playwright-python"


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips the test where it or its driver is not installed."""
    api = pytest.importorskip("playwright.sync_api", reason=MISSING)
    pytest.importorskip("axe_playwright_python", reason=MISSING)
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visited(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page of the browser that was opened at `url`; fails for an error in its console, unless `page.faults` is cleared."""
    context = browser.new_context(**({"viewport": {"width": 1100, "height": 800}} | options))
    try:
        page = context.new_page()
        page.faults = []
        page.set_default_timeout(20_000)
        page.on("console", lambda said: said.type in ("error", "warning") and page.faults.append(said.text))  # fmt: skip
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("dialog", lambda dialog: page.faults.append(f"a dialog: {dialog.message}"))
        page.goto(url)
        yield page
        assert page.faults == []
    finally:
        context.close()


def until(page: Any, expression: str) -> None:
    """Waits for an expression of the page to hold. playwright's own way is forbidden by the page's policy, which has no eval."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(20)


def axe_faults(page: Any) -> list[str]:
    """What axe finds wrong in the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]
