"""Writing a journal file: each commit is a chunk, and what it lacks is noted as a gap."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from .chunks import Columns, pack
from .connection import connect
from .file import APPLICATION, INSERT, TABLES, VERSION, Durability, JournalFile, Lines, Span, between


class JournalWriter(JournalFile):
    """The one connection that writes to a journal file. What it has not committed, nobody sees."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        self.position = 0
        """Position up to which everything is committed."""

    @classmethod
    def create(cls, path: Path, durability: Durability, about: Mapping[str, str]) -> JournalWriter:
        """Make the file at `path`, where there must be none.

        Raises:
            sqlite3.Error: it cannot be made.
            FileExistsError: there is one.
        """
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        writer = cls(connect(f"{path.absolute().as_uri()}?mode=rw"), path)
        try:
            writer._set_up("WAL", "FULL" if durability is Durability.POWER else "NORMAL", about)
        except BaseException:
            writer._db.close()
            raise
        return writer

    @classmethod
    def temporary(cls) -> JournalWriter:
        """Make a file without a name, which is gone with the connection, or with the process."""
        writer = cls(connect(""), Path())
        writer._set_up("OFF", "OFF", {})
        return writer

    def _set_up(self, mode: str, synchronous: str, about: Mapping[str, str]) -> None:
        self._db.execute(f"PRAGMA journal_mode = {mode}")
        self._db.execute(f"PRAGMA synchronous = {synchronous}")
        with self._transaction():
            for statement in TABLES.split(";"):
                self._db.execute(statement)
            self._db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")  # last: now it is one of ours

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._kinds.clear()  # some may have been new
                self._origins.clear()
                for checksums in self._checksums:
                    checksums.clear()
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    def commit(self, lines: Lines, time: int) -> None:
        """Write `lines` as one chunk, all of it or nothing; `time` (ms since 1970, UTC) is that of the first.

        Positions without a line, from the last commit on, are noted as gaps: nothing will ever be there.

        Raises:
            sqlite3.Error: it could not be written.
        """
        last = lines.seqs[-1]
        with self._transaction():
            if last - self.position > len(lines.seqs):
                written = (Span(seq, seq) for seq in lines.seqs)
                gaps = between([Span(1, self.position), *written], last)
                self._db.executemany("INSERT INTO gaps VALUES (?, ?)", gaps)
            self._write(lines, time)
        self.position = last

    def save(self, marks: Sequence[tuple[str, str, int]], given_up: Sequence[tuple[str, str, int, str, str]]) -> None:
        """Write how far durable subscriptions are, and what they gave up: see `bookmarks` and `set_aside`.

        Raises:
            sqlite3.Error: it could not be written.
        """
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO bookmarks VALUES (?, ?, ?)", marks)
            self._db.executemany("INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?, ?)", given_up)

    def _write(self, lines: Lines, time: int) -> None:
        kinds = {name: number for number, name in self.kinds().items()}
        origins = {origin: number for number, origin in self.origins().items()}
        for name in dict.fromkeys(lines.names):
            if name not in kinds:
                kinds[name] = len(kinds)
                self._db.execute("INSERT INTO kinds VALUES (?, ?)", (kinds[name], name))
        for origin in dict.fromkeys(lines.origins):
            if origin not in origins:
                origins[origin] = len(origins)
                self._db.execute("INSERT INTO origins VALUES (?, ?, ?, ?)", (origins[origin], *origin))
        numbers = [kinds[name] for name in lines.names], [origins[origin] for origin in lines.origins]
        chunk = pack(Columns(lines.seqs, *numbers, lines.bodies), self._labels)
        self._db.execute(INSERT, (chunk.first, chunk.last, time, *chunk[2:]))

    def close(self) -> None:
        """Close the file, as one that can be copied and read from anywhere if nobody reads it just now."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA journal_mode = DELETE")
        super().close()
