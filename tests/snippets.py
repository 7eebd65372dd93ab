"""Running code in an interpreter of its own, and the snippets of the documentation as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

AS_IN_A_NOTEBOOK = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(made):
    asyncio.run(made)
"""

_FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def interpret(*arguments: str, text: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter in `folder` with these arguments and with `text` as its input."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        timeout=100,
        check=False,
    )


def run_code(code: str, *flags: str) -> str:
    """Run `code` in a fresh interpreter, which has to end well, and return what it prints."""
    done = interpret("-W", "error", *flags, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(snippet: str, folder: Path, page: str = "README.md") -> str:
    """Run `snippet` of `page` in an interpreter of its own, as a notebook would, and return what it prints."""
    done = interpret("-W", "error::ResourceWarning", "-c", AS_IN_A_NOTEBOOK, page, text=snippet, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    return done.stdout


def as_program(text: str) -> str:
    """Return the snippets of a page as one program, each on the lines where the page has it."""
    lines = [""] * text.count("\n")
    for snippet in _FENCED.finditer(text):
        first = text.count("\n", 0, snippet.start(1))
        code = snippet[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)
