"""Running the snippets of the documentation as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

AS_IN_A_NOTEBOOK = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(made):
    asyncio.run(made)
"""

_FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(snippet: str, folder: Path, page: str = "README.md") -> str:
    """Run `snippet` of `page` in an interpreter of its own, as a notebook would, and return what it prints."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", AS_IN_A_NOTEBOOK, page]
    done = subprocess.run(command, input=snippet, capture_output=True, text=True, cwd=folder, timeout=100, check=False)
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
