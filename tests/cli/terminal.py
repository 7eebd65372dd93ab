"""A terminal for tests: a real pseudo-terminal with a command on it, and what its screen shows."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60
"""How long anything may take on a busy machine."""

# In a session of its own the terminal that is opened becomes the one whose Ctrl-C counts.
CONTROLLED = "import os; os.close(os.open(os.ttyname(1), os.O_RDWR))\n"
LINESIDE = CONTROLLED + "from lineside.__main__ import main; main()"

_PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[^\[]|[\r\n]|[^\x1b\r\n]+")


class Screen:
    """What a terminal shows that was sent some text. Knows what rich sends, and no more."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self.lines = lines
        self.alternate = False
        self.cursor = True
        self._rest = ""
        self._row = self._column = 0
        self._cells: dict[int, str] = {}

    @property
    def text(self) -> str:
        """The lines on it."""
        return "\n".join(self._cells.get(row, "").rstrip() for row in range(self.lines))

    def line(self, word: str) -> str:
        """Return the first line with `word`; an empty one if there is none."""
        return next((line for line in self.text.splitlines() if word in line), "")

    def send(self, text: str) -> None:
        """Show `text`. A sequence may come in two parts."""
        text = self._rest + text
        cut = re.search(r"\x1b(\[[?0-9;]*)?$", text)
        self._rest = text[cut.start() :] if cut else ""
        for part in _PART.finditer(text[: cut.start()] if cut else text):
            if part[2]:
                self._control(part[1], part[2])
            elif part[0] == "\n":
                self._row = min(self._row + 1, self.lines - 1)
            elif part[0] == "\r":
                self._column = 0
            elif part[0][0] != "\x1b":
                self._write(part[0])

    def _write(self, text: str) -> None:
        line = self._cells.get(self._row, "").ljust(self._column)
        self._cells[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._cells[self._row] = self._cells[self._row][: self.columns]
        self._column += len(text)

    def _control(self, value: str, what: str) -> None:
        match what, value:
            case "h" | "l", "?1049":
                self.alternate = what == "h"
                self._cells.clear()
            case "h" | "l", "?25":
                self.cursor = what == "h"
            case "H", "":
                self._row = self._column = 0
            case "A", _:
                self._row = max(self._row - int(value or 1), 0)
            case "J", _:
                self._cells.clear()
            case "K", _:
                self._cells[self._row] = ""
            case _:
                pass


class Terminal:
    """A command on a terminal."""

    def __init__(self, leader: int, follower: int, command: subprocess.Popen[bytes], screen: Screen) -> None:
        self._leader = leader
        self._follower = follower
        self.command = command
        self.screen = screen
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # what is read may end in a letter

    def type(self, keys: str) -> None:
        """Press `keys`."""
        os.write(self._leader, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make it another size."""
        self.screen.columns, self.screen.lines = columns, lines
        self.screen.send("\x1b[2J")
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def settings(self) -> list[object]:
        """What the terminal is set to: echo, lines, signals."""
        return termios.tcgetattr(self._follower)

    def wait_for(self, *words: str) -> str:
        """Wait until the screen shows all of `words`, and return what it shows."""
        self.wait_until(lambda: all(word in self.screen.text for word in words), " and ".join(words))
        return self.screen.text

    def wait_until(self, there: Callable[[], bool], what: str, *sources: int) -> None:
        """Wait until `there` says so, which is asked whenever something is written, or `sources` can be read."""
        until = time.monotonic() + SECONDS
        while not there():
            if not self._read(max(until - time.monotonic(), 0), *sources):
                raise AssertionError(f"never saw {what}; the screen shows\n{self.screen.text}")

    def wait(self) -> int:
        """Wait for the end of the command, and return its exit status."""
        ended = os.pidfd_open(self.command.pid)
        try:
            self.wait_until(lambda: bool(select.select([ended], [], [], 0)[0]), "its end", ended)
        finally:
            os.close(ended)
        while self._read(0):
            pass
        return self.command.wait()

    def wait_for_stop(self) -> None:
        """Wait until the command stands still, as Ctrl-Z asks for."""
        self.wait_until(lambda: not self.screen.alternate, "the screen of before")
        _, status = os.waitpid(self.command.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        while self._read(0):
            pass

    def _read(self, seconds: float, *sources: int) -> bool:
        """Show what is written within `seconds`, or return when `sources` can be read; return whether either came."""
        ready, _, _ = select.select([self._leader, *sources], [], [], seconds)
        if self._leader in ready:
            self.screen.send(self._decode(os.read(self._leader, 65536)))
        return bool(ready)


@contextmanager
def terminal(
    program: str, *arguments: object, columns: int = 120, lines: int = 24, keys: bool = True, cwd: Path | None = None
) -> Generator[Terminal]:
    """Run a Python program on a terminal of its own, without a keyboard if not `keys`, for the length of the block."""
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=follower if keys else subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**env, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        cwd=cwd,
        start_new_session=True,
    ) as command:
        try:
            yield Terminal(leader, follower, command, Screen(columns, lines))
        finally:
            command.send_signal(signal.SIGKILL)
            command.wait()
            os.close(follower)
            os.close(leader)
