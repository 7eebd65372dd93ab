"""Errors of the journal.

::

    LinesideError
    └── BusError
        └── JournalError
            ├── JournalUnreadable  (also OSError)  a file that is no journal, or too damaged to open
            ├── JournalRefused     (also OSError)  a folder that no journal can be kept in, or none can be read from
            ├── JournalDegraded    (also OSError)  the disk refuses what is published
            ├── UnknownRun         (also LookupError)  no run of that id is in the journal
            ├── InvalidPosition    (also ValueError)  not a position of a tail
            ├── ProcessDied        (also RuntimeError)  an event that kills whoever deals with it
            ├── PruneFailed        (also OSError)  a file cannot be removed
            ├── InvalidRetention   (also ValueError)  a limit on what is kept that is none
            └── InvalidSpeed       (also ValueError)  a speed that nothing can be replayed at
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from ..errors import BusError


class JournalError(BusError):
    """Something is wrong with a journal or its use."""


class JournalUnreadable(JournalError, OSError):
    """A file that is no journal, that another version wrote, or that is too damaged to be opened."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"cannot read {os.fspath(path)!r} as a journal: {reason}")


class JournalRefused(JournalError, OSError):
    """A folder that no journal can be kept in, or none can be read from."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        reason: str,
        wanted: Literal["keep a journal in", "read a journal from"] = "keep a journal in",
    ) -> None:
        super().__init__(f"cannot {wanted} {os.fspath(path)!r}: {reason}")


class JournalDegraded(JournalError, OSError):
    """The disk refuses what is published; it is kept in memory as long as there is room, and tried again."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"the journal {os.fspath(path)!r} could not be written: {reason}")


class UnknownRun(JournalError, LookupError):
    """No run of that id is in the journal."""

    def __init__(self, run: str, path: str | os.PathLike[str], known: Sequence[str]) -> None:
        close = get_close_matches(run, known, n=3, cutoff=0.5)
        there = f"the newest are {', '.join(known[:3])}" if known else "there are none"
        hint = f"did you mean {' or '.join(close)}?" if close else there
        super().__init__(f"no run {run!r} in {os.fspath(path)!r}; {hint}")


class InvalidPosition(JournalError, ValueError):
    """Not a position that a tail has told."""

    def __init__(self, position: str) -> None:
        super().__init__(
            f"{position[:80]!r} is no position in a journal; give one that came with an event, or none to begin at the "
            "beginning"
        )


class ProcessDied(JournalError, RuntimeError):
    """An event that kills whoever deals with it."""

    def __init__(self, name: str, times: int) -> None:
        super().__init__(
            f"the process died {times} times while {name} had this event in hand; expected that it survives its "
            "callback: look for what ends a process there, such as native code, os._exit() or too little memory"
        )


class InvalidRetention(JournalError, ValueError):
    """A limit on what is kept that is none."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"{name}={value!r}: expected 0 or more, or None for no limit")


class PruneFailed(JournalError, OSError):
    """A file cannot be removed."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"cannot remove {os.fspath(path)!r}: {reason}; remove it as who may write to its folder")


class InvalidSpeed(JournalError, ValueError):
    """A speed that nothing can be replayed at."""

    def __init__(self, speed: float) -> None:
        super().__init__(f"speed={speed!r}: expected more than 0; 1 is as it was, 10 ten times as fast, inf at once")
