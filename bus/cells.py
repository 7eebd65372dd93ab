"""Cells: what a notebook's cell did is taken back before the same cell is run again.

A cell is run many times while somebody works on it. What it registers with things that other cells made, and the runs
that it starts, would otherwise pile up: each event handled twice, then three times, by versions of a function that are
nowhere to be seen any more. `did` is told of each such thing, and costs next to nothing outside of a notebook.

A cell is known by the id that the frontend sends with its code. Jupyter's do; where none comes, as with the execution
of a whole notebook from the command line, nothing is taken back.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")

AGAIN = "its cell was run again"
"""Why what a cell had begun is ended."""


_cell: ContextVar[str | None] = ContextVar("lineside cell", default=None)
"""Id of the cell that the current code was called from; what it leaves running keeps it, other threads have none."""


def did(thing: T, undo: Callable[[T], object], over: Callable[[T, float], object] | None = None) -> None:
    """Have ``undo(thing)`` called when the cell that this was called from is run again, unless `thing` is gone by then.

    `undo` is called in the kernel's main thread, and must not block. Where that is only the beginning of the end,
    ``over(thing, seconds)`` waits for it, for `settle`.
    """
    if "IPython" in sys.modules:
        _did(thing, undo, over)


@contextmanager
def apart() -> Generator[None]:
    """Have nothing that is done in the block taken back: it serves more than the cell that happened to need it."""
    token = _cell.set(None)
    try:
        yield
    finally:
        _cell.reset(token)


def settle(seconds: float) -> None:
    """Wait up to `seconds` for the end of what was ended because the cell that this is called from is run again."""
    cell = _cell.get()
    if _cells is not None and cell is not None:
        _cells.of(cell).settle(seconds)


def _did(thing: T, undo: Callable[[T], object], over: Callable[[T, float], object] | None) -> None:
    global _cells
    if threading.current_thread() is not threading.main_thread():
        return
    if _cells is None:
        shell = _shell()
        if shell is None:
            return
        _cells = _Cells(shell)
    cell = _cell.get()
    if cell is not None:
        _cells.of(cell).add(thing, undo, over)


class _Done:
    """What one cell did since it was last run, as far as it is still there."""

    def __init__(self) -> None:
        self._things: dict[weakref.ref[Any], tuple[Callable[[Any], object], Callable[[Any, float], object] | None]] = {}
        self._leaving: list[Callable[[float], object]] = []

    def add(self, thing: T, undo: Callable[[T], object], over: Callable[[T, float], object] | None) -> None:
        self._things[weakref.ref(thing, self._forget)] = undo, over

    def _forget(self, gone: weakref.ref[Any]) -> None:
        self._things.pop(gone, None)

    def undo(self) -> None:
        """Take everything back, the newest first."""
        things, self._things = self._things, {}
        self._leaving = []
        for reference, (undo, over) in reversed(list(things.items())):
            thing = reference()
            if thing is not None:
                undo(thing)
                if over is not None:
                    self._leaving.append(partial(over, thing))

    def settle(self, seconds: float) -> None:
        leaving, self._leaving = self._leaving, []
        deadline = time.monotonic() + seconds
        for over in leaving:
            over(max(deadline - time.monotonic(), 0.0))


class _Cells:
    """The cells of this kernel."""

    def __init__(self, shell: _Shell) -> None:
        self._done: dict[str, _Done] = {}
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)
        _cell.set(_running_cell(shell))  # it began before anybody listened

    def of(self, cell: str) -> _Done:
        return self._done.setdefault(cell, _Done())

    def _before(self, info: _Info) -> None:
        cell = info.cell_id
        _cell.set(cell)
        if cell is not None and cell in self._done:
            self._done[cell].undo()

    def _after(self, _: object) -> None:
        _cell.set(None)


_cells: _Cells | None = None


class _Info(Protocol):
    cell_id: str | None


class _Events(Protocol):
    def register(self, event: str, function: Callable[..., object], /) -> object: ...


class _Shell(Protocol):
    events: _Events


def _shell() -> _Shell | None:
    get_ipython = getattr(sys.modules["IPython"], "get_ipython", None)  # missing while it is being imported
    return None if get_ipython is None else cast("_Shell | None", get_ipython())


def _running_cell(shell: _Shell) -> str | None:
    """Return the id of the cell that is being run; None where there is none, or no kernel."""
    get_parent = getattr(getattr(shell, "kernel", None), "get_parent", None)
    if get_parent is None:
        return None
    found = get_parent("shell").get("metadata", {}).get("cellId")
    return found if isinstance(found, str) else None
