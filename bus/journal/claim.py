"""A claim: the sign that a file's writer is alive. The system takes it back when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class Claim:
    """Held by the writer of a journal file, on a file beside it: SQLite's own locks do not bear another opening."""

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        self._path = _beside(path)
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(self._file)
            raise

    @classmethod
    def attempt(cls, path: Path) -> Claim | None:
        """Return the claim, or None where another has it."""
        try:
            return cls(path, wait=False)
        except BlockingIOError:
            return None

    def release(self) -> None:
        """Give it back. The second time does nothing."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def is_claimed(path: Path) -> bool:
    """Return whether the writer of the journal file at `path` is alive, on this machine."""
    try:
        file = os.open(_beside(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        with contextlib.suppress(OSError):
            os.close(file)
    return False


def _beside(path: Path) -> Path:
    return path.with_suffix(".lock")
