"""The programs of ``docs/delivery.md`` print what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "delivery.md"
PROGRAM = re.compile(r"^## (?P<title>[^\n]+)$|```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```", re.M | re.S)


def programs() -> list[tuple[str, str, str]]:
    """The heading above each program, the program and what it should print."""
    found: list[tuple[str, str, str]] = []
    title = ""
    for match in PROGRAM.finditer(PAGE.read_text(encoding="utf-8")):
        title = match["title"] or title
        if match["code"]:
            found.append((title, match["code"], match["output"]))
    return found


def test_every_program_of_the_page_is_followed_by_its_output() -> None:
    assert PAGE.read_text(encoding="utf-8").count("```python\n") == len(programs()) > 10


@pytest.mark.parametrize(
    ("code", "output"), [(code, output) for _, code, output in programs()], ids=[title for title, *_ in programs()]
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
