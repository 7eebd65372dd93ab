"""A claim: the sign that a file's writer is alive. The system takes it back when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple


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
            claim = cls(path, wait=False)
        except BlockingIOError:
            return None
        return claim if claim._holds() else None

    def _holds(self) -> bool:
        """Return whether it is for the file that is there: who had it before may have removed that in between."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), self._path.stat()):
                return True
        os.close(self._file)
        return False

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


class Hand:
    """What a durable subscription has in hand, beside the journal file, until that file is closed.

    In shared memory: it costs no system call, and stays when the process dies, whichever way.
    """

    def __init__(self, path: Path, name: str) -> None:
        file = os.open(_beside(path), os.O_RDWR | os.O_APPEND)
        try:
            if os.write(file, bytes(mmap.ALLOCATIONGRANULARITY)) < mmap.ALLOCATIONGRANULARITY:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # here, and not where the memory is written
            begin = os.lseek(file, 0, os.SEEK_CUR) - mmap.ALLOCATIONGRANULARITY
            self._page = mmap.mmap(file, mmap.ALLOCATIONGRANULARITY, offset=begin)
        finally:
            os.close(file)
        self._name = name.encode()

    def take(self, file: str, position: int, tries: int) -> None:
        """Note that the event at `position` in `file` is taken in hand, the how manieth time."""
        _IN_HAND.pack_into(self._page, 0, position, tries, self._name, os.fsencode(file))

    def empty(self) -> None:
        """Note that it has nothing in hand."""
        _IN_HAND.pack_into(self._page, 0, 0, 0, self._name, b"")


_IN_HAND = struct.Struct("<QQ64s255s")


class InHand(NamedTuple):
    """What a durable subscription had in hand when its process died."""

    file: str
    position: int
    tries: int


def in_hand(path: Path, name: str) -> InHand | None:
    """Return what the subscription `name` of the dead writer of the journal file at `path` had in hand, if anything."""
    try:
        pages = _beside(path).read_bytes()
    except OSError:
        return None
    for begin in range(0, len(pages) - _IN_HAND.size, mmap.ALLOCATIONGRANULARITY):
        position, tries, owner, file = _IN_HAND.unpack_from(pages, begin)
        if position and owner.rstrip(b"\0") == name.encode():
            return InHand(os.fsdecode(file.rstrip(b"\0")), position, tries)
    return None


def _beside(path: Path) -> Path:
    return path.with_suffix(".lock")
