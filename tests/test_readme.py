"""The README's snippets run as they are written, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .snippets import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
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


def test_every_link_leads_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text()):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{document}: {target}"
