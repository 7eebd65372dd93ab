"""The terminal: its keys, its signals, and that it is left as it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live

ESCAPE_SECONDS = 0.05
"""Time in which the rest of a key arrives that begins as Esc does."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAKING = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)

_KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "k": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "j": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "first",
    "\x1bOH": "first",
    "\x1b[1~": "first",
    "g": "first",
    "\x1b[F": "last",
    "\x1bOF": "last",
    "\x1b[4~": "last",
    "G": "last",
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
    "q": "quit",
    "\x03": "quit",
}
_KEY = re.compile("\x1b[\\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


class Terminal:
    """The whole of a terminal, with its keys where standard input is one.

    A context manager: behind it the terminal is as it was before, whatever happened.

    Only in the main thread: it takes the signals.

    Args:
        console: Where it is drawn.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False)
        self._input = _terminal_of(sys.stdin)
        self._before: list[Any] | None = None
        self._stack = contextlib.ExitStack()
        self._bell, self._ring = -1, -1
        self.ended_by: int | None = None
        """The signal that asks for the end."""
        self._suspended = False

    def __enter__(self) -> Terminal:
        with self._stack:
            self._stack.enter_context(self._taken_signals())
            self._stack.callback(self._release)
            self._take()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self._console.size

    @property
    def has_keys(self) -> bool:
        """Whether there is a keyboard."""
        return self._input is not None

    def draw(self, drawing: RenderableType) -> None:
        """Draw over everything. A terminal that is gone asks for the end."""
        try:
            self._live.update(drawing, refresh=True)
        except OSError:
            self.ended_by = self.ended_by or signal.SIGHUP

    def wait(self, seconds: float) -> list[str]:
        """Wait so long, or until a key is pressed or a signal comes; return the names of the keys.

        Names are ``up``, ``down``, ``page up``, ``page down``, ``first``, ``last``, ``enter``, ``escape``, ``quit``;
        others are the characters.
        """
        sources = [self._bell] if self._input is None else [self._bell, self._input]
        ready, _, _ = select.select(sources, [], [], max(seconds, 0.0))
        if self._bell in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._bell, 4096)
        if self._suspended:
            self._suspend()
        return self._keys() if self._input in ready else []

    # -- the keyboard --------------------------------------------------------------------------------

    def _keys(self) -> list[str]:
        assert self._input is not None
        with contextlib.suppress(OSError):  # it hung up
            data = os.read(self._input, 1024)
            if data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and select.select([self._input], [], [], ESCAPE_SECONDS)[0]:
                data += os.read(self._input, 1024)
            if data:
                keys: list[str] = _KEY.findall(data.decode(errors="replace"))
                return [_KEYS.get(key, key) for key in keys]
        self._input, self.ended_by = None, self.ended_by or signal.SIGHUP
        return []

    # -- what is taken, and given back ---------------------------------------------------------------

    def _take(self) -> None:
        if self._input is not None:
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
        self._live.start()

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()
        if self._before is not None and self._input is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)

    def _suspend(self) -> None:
        """Stand still as Ctrl-Z asks for, and go on as if nothing had been."""
        self._suspended = False
        self._release()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    @contextmanager
    def _taken_signals(self) -> Generator[None]:
        self._bell, self._ring = os.pipe()
        for end in (self._bell, self._ring):
            os.set_blocking(end, False)
        before = {number: signal.signal(number, self._note) for number in (*ENDING, *WAKING)}
        wakened = signal.set_wakeup_fd(self._ring, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakened)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._bell)
            os.close(self._ring)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self._suspended = True
        if number not in ENDING:
            return
        if self.ended_by is not None:  # twice: whatever it is doing takes too long
            raise KeyboardInterrupt
        self.ended_by = number


def _terminal_of(stream: TextIO | None) -> int | None:
    """Return the file descriptor of `stream` where it is a terminal."""
    if stream is None:
        return None
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # it is none of the system's, or closed
        return None
    return number if os.isatty(number) else None
