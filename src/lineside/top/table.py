"""The table: a line for every run, as many columns as fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from lineside.bus.subscribers import text
from lineside.bus.subscribers.drawing import DIM

from .columns import ACCENT, COLUMNS, MARKS, Column, state_of
from .watching import Watched

GAP = 2
"""Space between two columns."""
MARGIN = 2
"""Space left of the first, where the sign of the chosen run is."""
END = 1
"""Space right of the last."""
CHOSEN = "on grey23"
_CONTROLS = {**dict.fromkeys((*range(32), *range(127, 160)), "."), ord("\n"): " "}


def fitting(width: int, runs: Sequence[Watched]) -> list[tuple[Column, int]]:
    """Return the columns that fit into `width`, each with its own; the rest of it goes to those that can use it."""
    longest = max((len(run.summary.run) for run in runs), default=0)
    kept = sorted(COLUMNS, key=lambda column: column.keep)
    room = width - MARGIN - END
    while len(kept) > 1 and _needed(kept) > room:
        kept.pop()
    columns = [column for column in COLUMNS if column in kept]
    widths = {column: column.width for column in columns}
    first = columns[0]  # the run, which is to be read whole before others take more than they need
    widths[first] += min(max(min(first.most, longest) - first.width, 0), room - _needed(columns))
    spare = room - _needed(columns) - (widths[first] - first.width)
    most = {column: column.most for column in columns[1:]} | {first: 0}
    while spare > 0 and (growing := [column for column in columns if widths[column] < most[column]]):
        for column in growing[:spare]:
            widths[column] += 1
            spare -= 1
    return list(widths.items())


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def table(runs: Sequence[Watched], chosen: Watched | None, now: datetime, width: int) -> list[Text]:
    """Return a line of titles and one for each of `runs`."""
    columns = fitting(width, runs)
    titles = [Text(column.title.upper(), DIM) for column, _ in columns]
    return [_line(columns, titles, " " * MARGIN), *(_row(columns, run, run is chosen, now, width) for run in runs)]


def _row(columns: Sequence[tuple[Column, int]], run: Watched, chosen: bool, now: datetime, width: int) -> Text:
    line = _line(columns, [column.cell(run, now, room) for column, room in columns], "▌ " if chosen else "  ")
    if chosen:
        line.truncate(width, pad=True)
        line.stylize(CHOSEN)
        line.stylize(ACCENT, 0, MARGIN)
    return line


def _line(columns: Sequence[tuple[Column, int]], cells: Sequence[Text], margin: str) -> Text:
    line = Text(margin, no_wrap=True)
    for index, ((column, width), cell) in enumerate(zip(columns, cells, strict=True)):
        cell.truncate(width, overflow="ellipsis")
        space = " " * (width - cell.cell_len)
        line.append(" " * GAP if index else "")
        line.append(space if column.right else "").append_text(cell).append("" if column.right else space)
    return line


def head(folder: str, runs: Sequence[Watched], width: int) -> Text:
    """Return the line over everything: the folder, and how many runs are in which state."""
    counts = Counter(map(state_of, runs))
    said = [Text(f"{MARKS[name][0]} {counts[name]} {name}", MARKS[name][1]) for name in MARKS if counts[name]]
    right = Text("   ").join(said)
    left = Text.assemble(("  lineside top ", f"bold {ACCENT}"), (f" {folder}", DIM))
    left.truncate(max(width - right.cell_len - 3, 15), overflow="ellipsis")
    space = " " * max(width - left.cell_len - right.cell_len - 1, 1)
    return Text.assemble(left, space, right)


def foot(keys: Sequence[tuple[str, str]], note: Text, width: int) -> Text:
    """Return the line under everything: what the keys do, and a note on the right, which leaves them room."""
    said = Text("  ")
    wanted = sum(len(key) + len(what) + 4 for key, what in keys) + 3
    note.truncate(max(width - wanted, width // 3), overflow="ellipsis")
    for key, what in keys:
        if said.cell_len + len(key) + len(what) + 4 > width - note.cell_len - 1:
            break
        said.append(f"{key} ", f"bold {ACCENT}")
        said.append(f"{what}   ", DIM)
    space = " " * max(width - said.cell_len - note.cell_len - 1, 1)
    line = Text.assemble(said, space, note)
    line.truncate(width, overflow="ellipsis")
    return line


def plain(runs: Sequence[Watched], now: datetime) -> list[str]:
    """Return the table as plain lines, every column as wide as what is in it. No cell has spaces or is empty."""
    columns = [column for column in COLUMNS if not column.drawn]
    rows = [[column.title for column in columns]]
    rows += [[_words(column, run, now) for column in columns] for run in runs]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _words(column: Column, run: Watched, now: datetime) -> str:
    """Return what a cell says, without drawings."""
    words = column.words(run) if column.words else column.cell(run, now, 64).plain
    return harmless("".join(words.split())) or "-"


def harmless(said: str) -> str:
    """Return `said`, a line, without control characters, which a terminal would obey: a point, or a space, for each."""
    return said.translate(_CONTROLS)


def counted(shown: int, runs: int) -> str:
    """Return how many of the runs are shown."""
    return text.plural(runs, "run") if shown == runs else f"{shown:,} of {text.plural(runs, 'run')}"
