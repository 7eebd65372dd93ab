"""Live progress: a subscriber that draws on a terminal and writes plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Protocol

from ...schemas import Event


class Display(Protocol):
    """Shows events."""

    def show(self, event: Event) -> None:
        """Show what `event` says, if anything."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Progress:
    """Shows what runs do.

    ::

        bus.subscribe(Progress(), lane="process")

    On a terminal it draws bars that move and a table that grows, with rich; elsewhere, or with ``plain=True``, it
    writes a line a stage. It knows runs by their events only, so it works in any lane and for
    runs of other processes; what it draws with is made at the first event, where the callback runs.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self.plain = plain
        self._display: Display | None = None

    def __call__(self, event: Event) -> None:
        """Show `event`. Events of ranks other than 0 are left out: they say the same."""
        if event.rank:
            return
        if self._display is None:
            self._display = self.plain_display() if self.plain or not _is_terminal() else self.live_display()
        self._display.show(event)

    def plain_display(self) -> Display:
        """Return what shows events where there is no terminal. For subclasses to override."""
        from .plain import PlainDisplay

        return PlainDisplay(sys.stdout)

    def live_display(self) -> Display:
        """Return what shows events on a terminal. For subclasses to override."""
        from .live import LiveDisplay

        return LiveDisplay()

    def close(self) -> None:
        """Leave the terminal as it was. The next event draws again."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: everything but the terminal in use."""
        return {**self.__dict__, "_display": None}


def _is_terminal() -> bool:
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal  # one that cannot move its cursor
