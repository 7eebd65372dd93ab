"""What an import costs, in fresh interpreters: ours against pydantic, which it needs.

    python benchmarks/imports.py [--quick] [--json FILE]

The figures are the wall time of the statement itself, not of the interpreter's start.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from harness import Report, Spread, Table, arguments, interleave, paired

STATEMENTS = (
    "from pydantic import BaseModel",
    "import lineside",
    "from lineside import Bus",
    "from lineside.schemas import TrainBatchEnd",
    "import asyncio",
)
BASELINE = STATEMENTS[0]
HEAVY = ("torch", "numpy", "fastapi", "starlette", "nats", "rich", "typer")

PROGRAM = """
import time
begin = time.perf_counter()
{statement}
took = time.perf_counter() - begin
import sys
print(took, *[name for name in {heavy!r} if name in sys.modules])
"""


def measure(statement: str) -> tuple[float, list[str]]:
    """Return the milliseconds that `statement` takes, and which heavy packages it brought along."""
    program = PROGRAM.format(statement=statement, heavy=HEAVY)
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    took, *heavy = output.split()
    return float(took) * 1e3, heavy


def main() -> None:
    options = arguments("milliseconds an import")
    report = Report("imports", options)
    rounds = options.rounds or (1 if options.quick else 15)
    results = interleave({statement: partial(measure, statement) for statement in STATEMENTS}, rounds)
    columns = {"statement": "{}", "ms": "{:.0f}", "ratio to pydantic": "{:.2f}x", "brings along": "{}"}
    table = Table(f"wall time in fresh interpreters; median (min..max) of {rounds}", columns)
    base = [took for took, _ in results[BASELINE]]
    for statement, found in results.items():
        took = [milliseconds for milliseconds, _ in found]
        table.add(statement, Spread.of(took), paired(took, base), ", ".join(found[0][1]) or "nothing heavy")
    report.show(table)
    report.finish()


if __name__ == "__main__":
    main()
