"""The screen: which runs are shown, which is chosen, and whether it is open. Knows keys by name, and no terminal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic

from rich.text import Text

from lineside.bus.subscribers.drawing import DIM

from .details import Details
from .page import empty, page
from .table import counted, foot, harmless, head, table
from .watching import Folder, Watched, now

AROUND = 4
"""Lines of the screen that are not the table's: the head and the line below it, the titles, the foot."""
NOTE_SECONDS = 20.0
"""Time that a warning is shown for."""
Keys = Sequence[tuple[str, str]]
KEYS: Keys = (("q", "leave"), ("↑↓", "select"), ("⏎", "open"), ("a", "only live"))
KEYS_OF_ALL: Keys = (*KEYS[:3], ("a", "all runs"))
KEYS_OF_PAGE: Keys = (("q", "leave"), ("↑↓", "next run"), ("esc", "back"))


class Screen:
    """What is on the screen.

    Args:
        folder: What is shown.
        has_keys: Whether there is a keyboard, which the line at the bottom is for.
    """

    def __init__(self, folder: Folder, has_keys: bool = True) -> None:
        self._folder = folder
        self._name = f"{folder.path}"
        self._has_keys = has_keys
        self._chosen = ""
        self._details: Details | None = None
        self._only_live = False
        self._first = 0
        self._lines = 24
        self._notes = _Notes()

    def look(self) -> None:
        """Look what has come."""
        self._folder.look()
        self.read()

    def read(self) -> None:
        """Read on in the runs that are on the screen."""
        run = self.chosen
        if self._details is not None and run is not None:
            if self._details.run != run.summary.run:
                self._details = Details(run.summary.run)
            self._folder.follow([run])
            self._details.read(run)
        else:
            self._folder.follow(self._visible())

    @property
    def runs(self) -> list[Watched]:
        """The runs that are listed."""
        opened = self._chosen if self._details is not None else None  # stays, though it may be over
        runs = self._folder.runs_now
        return [run for run in runs if run.live or not self._only_live or run.summary.run == opened]

    @property
    def chosen(self) -> Watched | None:
        """The run that is chosen: if none was, the first."""
        runs = self.runs
        return next((run for run in runs if run.summary.run == self._chosen), runs[0] if runs else None)

    def press(self, key: str) -> bool:
        """Do what `key` stands for; return whether that is to leave."""
        match key:
            case "quit":
                return True
            case "enter":
                if self.chosen is not None:
                    self._chosen = self.chosen.summary.run
                    self._details = Details(self._chosen)
            case "escape":
                self._details = None
            case "a" if self._details is None:
                self._only_live = not self._only_live
            case _:
                self._move(key)
        self.read()
        return False

    def _move(self, key: str) -> None:
        far = max(self._lines - AROUND, 1)
        steps = {"up": -1, "down": 1, "page up": -far, "page down": far, "first": -(1 << 30), "last": 1 << 30}
        runs, chosen = self.runs, self.chosen
        if key in steps and chosen is not None:
            index = min(max(runs.index(chosen) + steps[key], 0), len(runs) - 1)
            self._chosen = runs[index].summary.run

    def _visible(self) -> Sequence[Watched]:
        """Return the runs that fit on the screen, with the chosen one among them."""
        runs, chosen = self.runs, self.chosen
        room = max(self._lines - AROUND, 1)
        place = runs.index(chosen) if chosen is not None else 0
        self._first = max(0, min(self._first, place, len(runs) - room), place - room + 1)
        return runs[self._first : self._first + room]

    # -- drawing -------------------------------------------------------------------------------------

    def draw(self, width: int, height: int) -> Text:
        """Return what the screen shows."""
        if height != self._lines:
            self._lines = height
            self.read()
        run = self.chosen
        if run is not None and self._details is not None:
            lines, keys = page(run, self._details, now(), width, height - 3), KEYS_OF_PAGE
        elif run is not None:
            lines, keys = table(self._visible(), run, now(), width), KEYS_OF_ALL if self._only_live else KEYS
        else:
            keys = KEYS_OF_ALL if self._only_live else KEYS[:1]
            lines = empty(self._name, self._folder.runs_now, width, height - 3)
        lines = [head(self._name, self._folder.runs_now, width), Text(), *lines[: height - 3]]
        lines += [Text() for _ in range(height - 1 - len(lines))]
        lines.append(foot(keys if self._has_keys else (), self._note(), width))
        for line in lines:
            line.plain = harmless(line.plain)
        drawn = Text("\n", no_wrap=True, overflow="crop", end="").join(lines)
        drawn.no_wrap = True
        return drawn

    def _note(self) -> Text:
        if note := self._notes.newest:
            return Text(note, "yellow")
        return Text(counted(len(self.runs), len(self._folder.runs_now)), DIM)

    # -- what would be written over the screen -------------------------------------------------------

    def __enter__(self) -> Screen:
        logging.getLogger("lineside").addHandler(self._notes)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("lineside").removeHandler(self._notes)


class _Notes(logging.Handler):
    """Keeps the newest warning for a while, which would go all over the screen elsewhere."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._newest = ""
        self._came = 0.0

    @property
    def newest(self) -> str:
        """What was warned of last; nothing where that is long ago."""
        return self._newest if monotonic() - self._came < NOTE_SECONDS else ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._newest, self._came = " ".join(record.getMessage().split()), monotonic()
