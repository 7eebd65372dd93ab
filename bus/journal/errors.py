"""Errors of the journal.

::

    LinesideError
    └── BusError
        └── JournalError
            ├── JournalUnreadable  (also OSError)  a file that is no journal, or too damaged to open
            ├── JournalRefused     (also OSError)  a folder that no journal can be kept in
            └── JournalDegraded    (also OSError)  the disk refuses what is published
"""

from __future__ import annotations

import os

from ..errors import BusError


class JournalError(BusError):
    """Something is wrong with a journal or its use."""


class JournalUnreadable(JournalError, OSError):
    """A file that is no journal, that a later version wrote, or that is too damaged to be opened."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"cannot read {os.fspath(path)!r} as a journal: {reason}")


class JournalRefused(JournalError, OSError):
    """A folder that no journal can be kept in."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"cannot keep a journal in {os.fspath(path)!r}: {reason}")


class JournalDegraded(JournalError, OSError):
    """The disk refuses what is published; it is kept in memory as long as there is room, and tried again."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"the journal {os.fspath(path)!r} could not be written: {reason}")
