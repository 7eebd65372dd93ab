"""The programs of the pages in ``docs/`` print what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bus.support import PATIENCE

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "delivery.md", DOCS / "journal.md", DOCS / "service.md", DOCS / "predictions.md"]
PROGRAM = re.compile(r"^## (?P<title>[^\n]+)$|```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```", re.M | re.S)


def programs(page: Path) -> list[tuple[str, str, str]]:
    """The heading above each program, the program and what it should print."""
    found: list[tuple[str, str, str]] = []
    title = ""
    for match in PROGRAM.finditer(page.read_text(encoding="utf-8")):
        title = match["title"] or title
        if match["code"]:
            found.append((f"{page.stem}: {title}", match["code"], match["output"]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_program_of_the_page_is_followed_by_its_output(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("```python\n") == len(programs(page)) > 0


PROGRAMS = [program for page in PAGES for program in programs(page)]


@pytest.mark.parametrize(
    ("code", "output"), [(code, output) for _, code, output in PROGRAMS], ids=[title for title, *_ in PROGRAMS]
)
def test_the_program_prints_what_the_page_says(tmp_path: Path, code: str, output: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)
