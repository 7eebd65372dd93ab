"""What every view is made of: a heading, a line with a bar, an ending."""

from __future__ import annotations

from math import ceil

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ...schemas import RunEnd
from . import wording

DIM = "bright_black"
LABEL = 9
"""Width of what stands left of everything else."""
TRACK = 26
"""Width of a bar."""


def heading(title: str, about: str = "") -> RenderableType:
    """Return the line that something begins with, with space before it."""
    line = Text.assemble((title, "bold cyan"), (f"  {about}".rstrip() + " ", DIM))
    return Group("", Rule(line, align="left", style=DIM))


def ending(event: RunEnd) -> Text:
    """Return the line that a run ends with."""
    style = {"completed": "green", "stopped": "yellow", "failed": "bold red"}[event.outcome]
    return labelled("●", wording.ending(event), style)


def labelled(label: str, said: str | Text, style: str = DIM) -> Text:
    """Return a line that stays: a label in the margin and what is said."""
    return Text.assemble((f" {label:<{LABEL}}", style), said)


def bar(label: str, done: float, total: int | None, *notes: str) -> RenderableType:
    """Return a line with a bar: its label, how far it is, and notes behind it. An unknown total pulses.

    A `done` between two whole numbers is within the next one: 2.4 of 8 epochs is epoch 3/8.
    """
    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    for width in (LABEL, TRACK, 9):
        grid.add_column(width=width, no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")  # gives way where the terminal is narrow
    track = ProgressBar(
        total=total, completed=done, width=TRACK, style=DIM, complete_style="cyan", finished_style="cyan"
    )
    count = f"{ceil(done):,}/{total:,}" if total else f"{ceil(done):,}"
    grid.add_row(Text(f" {label}", DIM), track, count, Text("  ".join(note for note in notes if note), DIM))
    return grid
