"""What the benchmarks share: the line about the machine, interleaved rounds, medians, a table and a JSON record.

A benchmark compares contenders within one run: every round runs each of them once, in an order that turns with the
round, so that a neighbour's load on a shared machine falls on all of them alike. Quote ratios, not absolute figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

T = TypeVar("T")

PACKAGES = ("lineside", "pydantic", "anyio", "torch", "pyee", "blinker", "psygnal", "bubus")


# ---------------------------------------------------------------------------------------------------- the command line


def arguments(description: str, **flags: dict[str, Any]) -> argparse.Namespace:
    """Parse the flags every script has, and those of this one: ``threads={"type": int, "default": 1}``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a second or two; its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=None, help="how often every contender is measured")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="write machine, flags and figures there"
    )
    for name, options in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    return parser.parse_args()


# --------------------------------------------------------------------------------------------------------- the machine


def machine() -> dict[str, object]:
    """Describe what the figures were taken on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "date": date.today().isoformat(),
    }


def machine_line(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    head = f"{facts['cores']} cores of {facts['cpu']} (load {facts['load']}), Python {facts['python']}"
    return f"{head}, {facts['date']}\n{versions}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --------------------------------------------------------------------------------------------------------- the rounds


def interleave(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every contender once a round, the first of each round being the second of the one before."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            _say(f"round {turn + 1} of {rounds}: {name}")
            gc.collect()
            results[name].append(contenders[name]())
    _say("")
    return results


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# -------------------------------------------------------------------------------------------------------- the figures


@dataclass(frozen=True)
class Spread:
    """The values of all rounds, quoted as their median with the smallest and the largest."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def range(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def format(self, spec: str) -> str:
        if len(self.values) == 1:
            return spec.format(self.values[0])
        low, high = map(spec.format, self.range)
        return f"{spec.format(self.median)} ({low}..{high})"


class Quartiles(Spread):
    """The same for many short turns, of which the least and the greatest say little: quoted with their quartiles."""

    @property
    def range(self) -> tuple[float, float]:
        low, _, high = quantiles(self.values, method="inclusive")
        return low, high


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def paired(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Return the ratios of the rounds: each value by the baseline of its own round."""
    return Spread.of([value / base for value, base in zip(values, baseline, strict=True)])


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass
class Table:
    """Rows of figures under columns, each of which has its format: ``{"contender": "{}", "p50 µs": "{:.2f}"}``."""

    title: str
    columns: dict[str, str]
    rows: list[tuple[object, ...]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append(cells)

    def lines(self) -> list[str]:
        texts = [list(self.columns), *(self._texts(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        body = [
            "  ".join(
                _aligned(text, width, first=i == 0) for i, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in texts
        ]
        return ["", self.title, "-" * len(body[0]), body[0], "-" * len(body[0]), *body[1:]]

    def _texts(self, row: tuple[object, ...]) -> list[str]:
        return [_cell(cell, spec) for cell, spec in zip(row, self.columns.values(), strict=True)]

    def record(self) -> dict[str, object]:
        rows = [[cell.values if isinstance(cell, Spread) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows}


def _cell(cell: object, spec: str) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        return cell.format(spec)
    return cell if isinstance(cell, str) else spec.format(cell)


def _aligned(text: str, width: int, *, first: bool) -> str:
    return text.ljust(width) if first else text.rjust(width)


class Report:
    """What one script prints and writes."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.machine = machine()
        # What a flood makes the bus miss is counted in the tables; a warning for each gap would drown them.
        logging.getLogger("lineside.bus").setLevel(logging.ERROR)
        self.tables: list[Table] = []
        print(f"{name}: {machine_line(self.machine)}", flush=True)
        if options.quick:
            print("(--quick: a smoke run, its figures mean nothing)")

    def show(self, table: Table) -> None:
        self.tables.append(table)
        print("\n".join(table.lines()), flush=True)

    def finish(self) -> None:
        """Write the record where `--json` asks for it."""
        if self.options.json is None:
            return
        flags = {key: str(value) for key, value in vars(self.options).items() if key != "json"}
        tables = [table.record() for table in self.tables]
        record = {"benchmark": self.name, "machine": self.machine, "flags": flags, "tables": tables}
        self.options.json.write_text(json.dumps(record, indent=1) + "\n")
