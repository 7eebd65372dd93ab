"""``docs/events.md`` says what the classes say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from .strategies import shipped

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "events.md").read_text(encoding="utf-8")


def test_the_page_is_what_its_script_writes_from_the_classes() -> None:
    page = runpy.run_path(str(DOCS / "make_events.py"))["page"]()
    assert page == PAGE, "docs/events.md is not up to date: run make docs"


def test_every_event_has_its_place_on_the_page() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted([*(cls.__name__ for cls in shipped()), "ErrorInfo"])
    assert all(f"`{cls.callback}`" in PAGE for cls in shipped())


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_snippets_of_the_page_run(snippet: str) -> None:
    exec(compile(snippet, str(DOCS / "events.md"), "exec", dont_inherit=True), {"__name__": "docs.events"})
