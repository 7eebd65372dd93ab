"""``lineside top``: every run of a journal folder on a terminal, live."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lineside.commands.group import KILLED

if TYPE_CHECKING:
    from rich.console import Console

Folder = Annotated[
    Path, typer.Argument(metavar="[FOLDER]", file_okay=False, help="Folder of the journal; need not be there yet.")
]
SHORTEST, LONGEST = 0.05, 86400.0
"""Seconds between two looks."""


def _seconds(value: float) -> float:
    """Return `value`, where that is a time to wait.

    Raises:
        typer.BadParameter: it is not.
    """
    if not SHORTEST <= value <= LONGEST:  # nor is nan, which a range of the option would let pass
        raise typer.BadParameter(f"got {value}; expected seconds from {SHORTEST} to {LONGEST:.0f}, which is a day")
    return value


Interval = Annotated[
    float,
    typer.Option(
        "--interval", metavar="SECONDS", callback=_seconds, help="Time between two looks into the folder, from 0.05 on."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Print the table as plain text, and leave.")]


def top(
    folder: Folder = Path("runs"),
    once: Once = False,
    interval: Interval = 0.5,
) -> None:
    """Show all runs of a journal folder on the terminal, live.

    Where standard output is no terminal, the table is printed once.
    """
    from rich.console import Console

    console = Console()
    if once or not console.is_terminal or console.is_dumb_terminal:
        _print(folder)
    else:
        _show(folder, interval, console)


def _print(folder: Path) -> None:
    """Print the table.

    Raises:
        JournalRefused: there is no such folder.
    """
    from lineside.top import watching
    from lineside.top.table import plain

    shown = watching.Folder(folder)
    shown.refuse_absence()
    shown.look()
    shown.follow(shown.runs_now, float("inf"))
    for line in plain(shown.runs_now, watching.now()):
        typer.echo(line)


def _show(folder: Path, interval: float, console: Console) -> None:
    """Show the table until a key or a signal ends it."""
    from lineside.top import watching
    from lineside.top.screen import Screen
    from lineside.top.terminal import Terminal

    with Terminal(console) as terminal, Screen(watching.Folder(folder), terminal.has_keys) as screen:
        looked = -interval
        while terminal.ended_by is None:
            if time.monotonic() - looked >= interval:
                looked = time.monotonic()
                screen.look()
            terminal.draw(screen.draw(*terminal.size))
            keys = terminal.wait(looked + interval - time.monotonic())
            if any(screen.press(key) for key in keys):
                return
    if terminal.ended_by != signal.SIGINT:  # Ctrl-C is one way to leave
        raise typer.Exit(KILLED + terminal.ended_by)
