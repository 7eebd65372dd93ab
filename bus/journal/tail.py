"""Reading along: what any process publishes into a journal folder, as it is committed, from a position on."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
from collections import deque
from collections.abc import Collection, Container, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from .chunks import Chunk, Record, maker
from .claim import is_claimed
from .errors import InvalidPosition, JournalUnreadable
from .file import SUFFIX, UNKNOWN, JournalFile, Origin, Span, between, opens
from .filesystem import refuse_unreadable
from .recorder import UNENCODABLE

logger = logging.getLogger("lineside.bus")

CHUNKS = 8
"""Chunks of one file that are read at once."""

_PART = r"[0-9a-f]{10}\.[0-9]{1,15}"
_POSITION = re.compile(rf"(?:{_PART}(?:-{_PART})*)?")


class Told(NamedTuple):
    """An event as a journal has it."""

    position: str
    """Position right behind it: a `Tail` with ``after=`` this one goes on with the next event."""
    file: str
    """Name of the file it is in."""
    seq: int
    """Its position in that file."""
    name: str
    """Name of its type, e.g. ``TrainBatchEnd``."""
    origin: Origin
    """Run, attempt and rank that published it."""
    body: bytes
    """Its JSON, for `lineside.schemas.decode`."""


_told = maker(Told)


class Gap(NamedTuple):
    """Positions of a file that nothing can be told of: never written, or lost to damage."""

    file: str
    """Name of the file."""
    first: int
    last: int
    """The last position, included."""


class Tail:
    """Reads what any process publishes into a journal folder, as it is committed.

    Files that appear later are found. What one process published comes in its order; several are merged by the time
    of their commits. Use it from one thread at a time.

    Args:
        folder: The folder that the buses keep their journal in.
        run: Only the events of this run; None: of all.
        names: Only events of these types, by their names on the wire; None: of all.
        ranks: Only what these ranks published; None: all of them.
        after: A position of a `Tail` of this folder, to go on behind it; empty: from the beginning.

    Raises:
        InvalidPosition: `after` is no position.
        JournalRefused: there is no such folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        run: str | None = None,
        names: Container[str] | None = None,
        ranks: Collection[int] | None = None,
        after: str = "",
    ) -> None:
        self.path = Path(folder)
        self._choice = _Choice(run, names, ranks)
        self._begins = _parse(after)
        self._files: dict[str, _FileTail] = {}
        refuse_unreadable(self.path)
        self._look_around()

    def read(self, limit: int = 500) -> list[Told]:
        """Return the next events, the oldest first, at most `limit`; an empty list if there are none now.

        Raises:
            JournalUnreadable: the folder or the disk refused to be read. Nothing is passed over: it can be tried again.
        """
        self._look_around()
        told: list[Told] = []
        ready = [file for file in self._files.values() if file.fill()]
        while ready and len(told) < limit:
            file = min(ready, key=lambda file: file.time)
            before, behind = self._positions_around(file)
            told += file.take(limit - len(told), before, behind)
            if not file.fill():
                ready.remove(file)
        return told

    @property
    def position(self) -> str:
        """Where it is: opaque, made of letters, digits, points and hyphens; ``after=`` takes it. Empty: nowhere yet."""
        return _join(file.part() for file in self._files.values())

    def gaps(self) -> list[Gap]:
        """Return the gaps that were passed since the last call."""
        return [Gap(file.path.name, *span) for file in self._files.values() for span in file.passed()]

    def close(self) -> None:
        """Close the files. The next `read` opens them again."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look_around(self) -> None:
        """Find the files that have come, and forget those that were removed once they are read."""
        try:
            with os.scandir(self.path) as entries:
                names = {entry.name for entry in entries if entry.name.endswith(SUFFIX)}
        except OSError as error:
            raise JournalUnreadable(self.path, error.strerror or str(error)) from None
        come = names - self._files.keys()
        gone = {name for name in self._files.keys() - names if self._files[name].finished}
        if not come and not gone:
            return
        for name in come:
            key = key_of(name)
            self._files[name] = _FileTail(self.path / name, key, self._begins.get(key, 0), self._choice)
        # Sorted by name they are sorted by time, so that of two that were committed at once the older comes first.
        self._files = {name: self._files[name] for name in sorted(self._files) if name not in gone}

    def _positions_around(self, file: _FileTail) -> tuple[str, str]:
        """Return what comes before and behind the position in `file` when it is told with those in the others."""
        names = list(self._files)
        index = names.index(file.path.name)
        before = _join(self._files[name].part() for name in names[:index])
        behind = _join(self._files[name].part() for name in names[index + 1 :])
        return f"{before}-" * bool(before) + f"{file.key}.", f"-{behind}" * bool(behind)


class _Choice(NamedTuple):
    """What is wanted of the files."""

    run: str | None
    names: Container[str] | None
    ranks: Collection[int] | None

    def kinds(self, file: JournalFile) -> set[int] | None:
        """Return the numbers that the types have in `file`; None: all."""
        if self.names is None:
            return None
        return {number for number, name in file.kinds().items() if name in self.names}

    def origins(self, file: JournalFile) -> set[int] | None:
        """Return the numbers that those who publish have in `file`; None: all."""
        if self.run is None and self.ranks is None:
            return None
        return {
            number
            for number, origin in file.origins().items()
            if self.run in (None, origin.run) and (self.ranks is None or origin.rank in self.ranks)
        }


class _FileTail:
    """The way through one file."""

    def __init__(self, path: Path, key: str, after: int, choice: _Choice) -> None:
        self.path = path
        self.key = key
        self.time = 0
        """Time of what comes next, in ms since 1970, UTC."""
        self.finished = False
        """Whether its writer is gone and everything is read."""
        self._choice = choice
        self._warned = False
        self._file: JournalFile | None = None
        self._position = self._reached = after
        self._read: deque[tuple[int, deque[Record]]] = deque()
        self._gaps: deque[Span] = deque()

    def part(self) -> str:
        """Return its part of a position; nothing at its beginning."""
        return f"{self.key}.{self._position}" if self._position else ""

    def passed(self) -> Iterable[Span]:
        """Return the gaps that lie behind."""
        while self._gaps and self._gaps[0].last <= self._position:
            yield self._gaps.popleft()

    def take(self, limit: int, before: str, behind: str) -> list[Told]:
        """Return up to `limit` of what was read, all of one chunk."""
        _, records = self._read[0]
        taken = records if limit >= len(records) else [records.popleft() for _ in range(limit)]
        assert self._file is not None
        kinds, origins, file = self._file.kinds(), self._file.origins(), self.path.name
        rows = [
            (f"{before}{seq}{behind}", file, seq, kinds[kind], origins[origin], body)
            for seq, kind, origin, body in taken
        ]
        told = list(map(_told, rows))
        self._position = told[-1].seq
        if taken is records:
            self._read.popleft()
        self._settle()
        return told

    def fill(self) -> bool:
        """Read on if nothing is left of what was read; return whether there is something to take."""
        if self._read or self.finished:
            return bool(self._read)
        alive = is_claimed(self.path)  # before looking: what the dead have left does not grow
        try:
            if self._file is None:
                self._file = JournalFile.open(self.path)
            upto = self._read_on(self._file)
        except JournalUnreadable as error:
            if alive:  # it is just being made
                return False
            if not self._warned and self.path.exists():
                self._warned = True
                logger.warning("%s; it is left out", error)
            if self.path.exists() and not opens(self.path):
                return False
            upto = UNKNOWN
        except sqlite3.Error as error:
            raise JournalUnreadable(self.path, str(error)) from None
        if not self._read and (upto == UNKNOWN or not alive):
            self.finished = True
            self.close()
        return bool(self._read)

    def _read_on(self, file: JournalFile) -> int:
        """Read the next chunks in which something is wanted; return how far the file goes."""
        upto = file.last_readable()  # before the numbers: whatever is committed up to there has them
        kinds, origins = self._choice.kinds(file), self._choice.origins(file)
        if origins is not None and not origins:
            return upto  # the position need not tell of it
        while self._reached < upto and not self._read:
            after = self._reached
            chunks, reached, skipped = file.chunks(
                after, upto, kinds=kinds, origins=origins, limit=CHUNKS, careful=True
            )
            if upto == UNKNOWN:
                if not chunks:
                    break
                reached = chunks[-1][1].last
            spans = [
                *(span for span in file.committed(after, reached) if skipped is None or span.first > skipped.last),
                *(Span(chunk.first, chunk.last) for _, chunk in chunks),
            ]
            gaps = between([Span(0, after), *spans], reached)
            for time, chunk in chunks:
                wanted, lost = self._unpack(file, chunk, kinds, origins)
                gaps += lost
                if wanted:
                    self._read.append((time, deque(wanted)))
            self._gaps.extend(sorted(gaps))
            self._reached = reached
        self._settle()
        return upto

    def _unpack(
        self, file: JournalFile, chunk: Chunk, kinds: set[int] | None, origins: set[int] | None
    ) -> tuple[list[Record], list[Span]]:
        """Return the records of `chunk` that are ahead and wanted, and the positions where there is none at all."""
        every = file.kinds(), file.origins()  # by then it has those that the chunk needs
        begin = max(self._reached, chunk.first - 1)
        ahead = list(file.unpack(chunk))
        if begin >= chunk.first:
            ahead = [record for record in ahead if record.seq > begin]
        wanted = _those(ahead, every[0] if kinds is None else kinds, every[1] if origins is None else origins)
        if len(wanted) == chunk.last - begin:
            return wanted, []
        spans = [Span(0, begin), *(Span(record.seq, record.seq) for record in _those(ahead, *every))]
        return wanted, between(spans, chunk.last)

    def _settle(self) -> None:
        """With nothing left to take, it is as far as was read."""
        if self._read:
            self.time = self._read[0][0]
        else:
            self._position = self._reached

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _those(records: Iterable[Record], kinds: Collection[int], origins: Collection[int]) -> list[Record]:
    """Return which of `records` are of `kinds` and `origins`, and say something."""
    return [one for one in records if one.kind in kinds and one.origin in origins and one.body != UNENCODABLE]


def key_of(name: str) -> str:
    """Return the short name that positions have for the file called `name`."""
    return hashlib.blake2b(os.fsencode(name), digest_size=5).hexdigest()


def _join(parts: Iterable[str]) -> str:
    return "-".join(filter(None, parts))


def _parse(position: str) -> dict[str, int]:
    """Return the position in each file, by its key.

    Raises:
        InvalidPosition: it is no position.
    """
    if not _POSITION.fullmatch(position):
        raise InvalidPosition(position)
    parts = [part.split(".") for part in position.split("-") if part]
    found = {key: int(seq) for key, seq in parts}
    if len(found) < len(parts):
        raise InvalidPosition(position)
    return found
