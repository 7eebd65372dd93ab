"""The README's snippets run as they are written, and what the pages link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .snippets import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [page for folder in ("", "docs", "benchmarks") for page in sorted((ROOT / folder).glob("*.md"))]
SNIPPETS = dict(re.findall(r"^\*\*(\w+)\.\*\*.*?```python\n(.*?)```", README, re.MULTILINE | re.DOTALL))


def test_there_are_three_snippets() -> None:
    assert list(SNIPPETS) == ["Log", "Notebook", "Stream"]


@pytest.mark.slow
def test_the_log_snippet_writes_every_event_and_reports_every_epoch(tmp_path: Path) -> None:
    printed = run(SNIPPETS["Log"], tmp_path)
    assert [line.split()[0] for line in printed.splitlines()][:3] == ["0", "1", "2"]
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert '"RunStart"' in lines[0]
    assert '"RunEnd"' in lines[-1]


@pytest.mark.slow
def test_the_notebook_snippet_watches_holds_and_stops(tmp_path: Path) -> None:
    printed = run(SNIPPETS["Notebook"], tmp_path)
    assert [line.split()[0] for line in printed.splitlines()] == ["0", "1", "2"]


@pytest.mark.slow
def test_the_stream_snippet_prints_a_digit_for_each_picture(tmp_path: Path) -> None:
    assert len(run(SNIPPETS["Stream"], tmp_path).split()) == 270


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", prose(page))
    lost = [f"{target}#{anchor}" for target, anchor in links if not leads(page.parent / target, page, target, anchor)]
    assert lost == []


def leads(path: Path, page: Path, target: str, anchor: str) -> bool:
    if target.startswith("https://"):
        return True
    found = path if target else page
    return found.exists() and (not anchor or anchor in anchors(found))


def anchors(page: Path) -> set[str]:
    """The anchors that a page is shown with."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def prose(page: Path) -> str:
    """The text of a page without its code, in which a bracket may be no link."""
    return re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
