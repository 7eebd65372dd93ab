"""Pages of the dashboard in a real browser, and what is on them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page

from lineside.schemas import Event

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 400, "height": 800}
LINES = ".legend span:not(.place)"
SOON = 30_000
"""Milliseconds that a page may take on a busy machine, where how soon is not the question."""

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Sample(Event, name="tests.service.Sample"):
    """A user's event, of a type that the page knows nothing of."""

    picture: str
    said: str = ""


class Visit:
    """A page, and what must not happen on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.hosts: set[str] = set()
        self.wrong: list[str] = []
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self.wrong.append(said.text) if "Content Security" in said.text else None)


@contextmanager
def visiting(browser: Browser, address: str, viewport: Any = WIDE, **options: Any) -> Generator[Page]:
    """Open a page for the length of the block; it may throw nothing, and ask nobody but its service."""
    with browser.new_context(viewport=viewport, **options) as context:
        visit = Visit(context.new_page())
        visit.page.set_default_timeout(SOON)
        visit.page.goto(address)
        yield visit.page
        assert not visit.wrong
        assert visit.hosts == {address.split("/")[2]}


def row(page: Page, run: str) -> Locator:
    return page.locator(f"#runs li[data-run='{run}']")


def types(page: Page) -> list[str]:
    """Return the types of the events in the feed, the newest first."""
    return page.locator(".events .type").all_inner_texts()
