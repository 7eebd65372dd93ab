"""A journal file: the log of one bus on disk, chunk by chunk, in SQLite; `writer.py` writes it.

Exactly one connection ever writes to a file, that of the bus that made it: a bus never opens an older file to write.
Readers can neither write nor checkpoint. SQLite from 3.7.0 to 3.51.2 may damage a file that two connections do that to.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, cast

from .chunks import HEAD_BYTES, MANY, Chunk, Labels, Record, bit, bits, heads, unpack
from .connection import connect
from .errors import JournalUnreadable

APPLICATION = 0x4C4E5344
"""Marks a SQLite file as one of ours (``LNSD``)."""
VERSION = 2
SUFFIX = ".sqlite"
CAREFUL_STEPS = 20_000
"""Positions that are tried one by one behind a place that is damaged; further ones in ever longer steps."""
UNKNOWN = 1 << 40
"""Stands for the last position of a file that is too damaged to tell: there are fewer events in any."""

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE origins (id INTEGER PRIMARY KEY, run TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL);
CREATE TABLE chunks (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time INTEGER NOT NULL, kinds INTEGER NOT NULL,
    origins INTEGER NOT NULL, checksum INTEGER NOT NULL, guard INTEGER NOT NULL, heads BLOB NOT NULL,
    bodies BLOB NOT NULL
);
CREATE TABLE bookmarks (
    name TEXT NOT NULL, file TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (name, file)
);
CREATE TABLE set_aside (
    name TEXT NOT NULL, file TEXT NOT NULL, position INTEGER NOT NULL, type TEXT NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (name, file, position)
);
CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
"""
_GUARD = (
    "((first % 2147483647 * 3 + last % 2147483647 * 5 + time % 2147483647 * 7 + kinds % 2147483647 * 11 + "
    "origins % 2147483647 * 13) % 2147483647)"
)
"""A checksum that SQLite itself can tell. The divisor is a prime, so that any flipped bit changes it."""
_SOUND = f"coalesce(guard = {_GUARD}, 0)"
"""Whether a chunk's columns are as they were written."""
INSERT = (
    "INSERT INTO chunks (first, last, time, kinds, origins, checksum, heads, bodies, guard) "
    f"SELECT *, {_GUARD} FROM (SELECT ? AS first, ? AS last, ? AS time, ? AS kinds, ? AS origins, ?, ?, ?)"
)


class Durability(StrEnum):
    """What a commit survives."""

    PROCESS = "process"
    """The death of the process, however it comes. A power failure may take the newest commits, and damages nothing."""
    POWER = "power"
    """A power failure too: every commit waits for the disk."""


class Origin(NamedTuple):
    """Who published an event."""

    run: str
    attempt: int
    rank: int


class Lines(NamedTuple):
    """Events on their way to a file, in columns."""

    seqs: list[int]
    names: list[str]
    """Of their types."""
    origins: list[Origin]
    bodies: list[bytes]
    """Their JSON."""


class Span(NamedTuple):
    """Positions from `first` to `last`, both included."""

    first: int
    last: int


class Chunks(NamedTuple):
    """Some chunks of a file."""

    chunks: list[tuple[int, Chunk]]
    """Each with its time, in ms since 1970, UTC."""
    reached: int
    """Position up to which there are no others of that choice."""
    skipped: Span | None = None
    """What could not be read on the way."""


class Check(NamedTuple):
    """What was found in a journal file."""

    path: Path
    events: int
    """Events that can be read."""
    gaps: list[Span]
    """Positions where there never was an event: invalid fields, or a disk that refused."""
    holes: list[Span]
    """Positions whose events are lost to damage."""
    problem: str = ""
    """Why it cannot be read at all, if it cannot."""


class JournalFile:
    """A connection to a journal file, for reading; `JournalWriter` is one that writes.

    Safe to use from several threads.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._db = connection
        self._lock = threading.RLock()
        self._kinds: dict[int, str] = {}
        self._origins: dict[int, Origin] = {}
        this = weakref.proxy(self)
        self._checksums = _Checksums(lambda kind: this._kind(kind)), _Checksums(lambda origin: this._origin(origin))
        self._labels = Labels(*self._checksums)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> JournalFile:
        """Open the file at `path`, which another process may be writing.

        Raises:
            JournalUnreadable: it is no journal file, or one of another version.
        """
        path = Path(path)
        file = None
        try:
            file = cls(connect(f"{path.absolute().as_uri()}?mode=ro"), path)
            file._check()
        except (sqlite3.Error, UnicodeDecodeError, JournalUnreadable) as error:  # what SQLite says may be damaged too
            if file is not None:
                file.close()
            raise error if isinstance(error, JournalUnreadable) else JournalUnreadable(path, str(error)) from None
        return file

    def _check(self) -> None:
        self._db.execute("PRAGMA query_only = ON")
        if self._one("PRAGMA application_id") != APPLICATION:
            raise JournalUnreadable(self.path, "it is no journal of Lineside, or its writer has not begun it yet")
        version = self._one("PRAGMA user_version")
        if version != VERSION:
            raise JournalUnreadable(self.path, f"it has version {version}, and this Lineside reads {VERSION}")
        tables = {sql for (sql,) in self._db.execute("SELECT sql FROM sqlite_master")}
        if not tables.issuperset(statement.strip() for statement in TABLES.split(";") if statement.strip()):
            raise JournalUnreadable(self.path, "what it says of its tables is damaged; copy what you can with sqlite3")

    def _one(self, statement: str, *values: object) -> Any:
        with self._lock:
            row = self._db.execute(statement, values).fetchone()
        return None if row is None else row[0]

    # -- what it holds -----------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """Position of the newest event; 0 where there is none."""
        with self._lock:
            row = self._db.execute(
                f"SELECT {_SOUND}, last, first, CASE WHEN NOT {_SOUND} THEN heads END FROM chunks "
                "ORDER BY first DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return 0
        sound, last, first, head = row
        return last if sound else _end(last, first, head)

    @property
    def first(self) -> int:
        """Position of the oldest event; 0 where there is none."""
        return self._one("SELECT min(first) FROM chunks") or 0

    def about(self) -> Mapping[str, str]:
        """Return what the writer said of itself: host, pid, time, durability."""
        with self._lock:
            return dict(self._db.execute("SELECT key, value FROM about"))

    def kinds(self) -> Mapping[int, str]:
        """Return the names of the types in it, by their number."""
        with self._lock:
            self._kinds.update(self._db.execute("SELECT id, name FROM kinds WHERE id >= ?", (len(self._kinds),)))
        return self._kinds

    def origins(self) -> Mapping[int, Origin]:
        """Return the runs, attempts and ranks in it, by their number."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, run, attempt, rank FROM origins WHERE id >= ?", (len(self._origins),)
            ).fetchall()
        self._origins.update((number, Origin(*origin)) for number, *origin in rows)
        return self._origins

    def kind(self, record: Record) -> str:
        """Return the name of the type of `record`."""
        return self._kind(record.kind)

    def _kind(self, number: int) -> str:
        return self._kinds.get(number) or self.kinds()[number]

    def origin(self, record: Record) -> Origin:
        """Return who published `record`."""
        return self._origin(record.origin)

    def _origin(self, number: int) -> Origin:
        return self._origins.get(number) or self.origins()[number]

    # -- reading -----------------------------------------------------------------------------------

    def read(
        self,
        after: int,
        upto: int,
        *,
        names: Collection[str] | None = None,
        runs: Collection[str] | None = None,
        chunks: int = 1,
        careful: bool = False,
    ) -> tuple[list[Record], int]:
        """Return the records between positions `after` and `upto`, the last included, and the position reached.

        No more than `chunks` chunks are read at once. `names` and `runs` choose types and runs. With `upto` a position
        that was committed before the call, whatever there is on the way there is found.
        """
        with self._lock:
            kinds = None if names is None else {number for number, name in self.kinds().items() if name in names}
            origins = None if runs is None else {number for number, one in self.origins().items() if one.run in runs}
            found, reached, _ = self.chunks(after, upto, kinds=kinds, origins=origins, limit=chunks, careful=careful)
        records = [
            record
            for _, chunk in found
            for record in self.unpack(chunk)
            if after < record.seq <= upto
            and (kinds is None or record.kind in kinds)
            and (origins is None or record.origin in origins)
        ]
        return records, reached

    def records(
        self, after: int = 0, *, names: Collection[str] | None = None, runs: Collection[str] | None = None
    ) -> Iterator[Record]:
        """Yield all records after position `after` that were committed before the call and can still be read."""
        upto = self.last_readable()
        while after < upto:
            records, after = self.read(after, upto, names=names, runs=runs, chunks=8, careful=True)
            yield from records

    def unpack(self, chunk: Chunk) -> Iterator[Record]:
        """Return the records of `chunk` that are whole."""
        return unpack(chunk, self._labels)

    def last_readable(self) -> int:
        """Return `last`; of a file that is damaged where it says so, `UNKNOWN`."""
        try:
            return self.last
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            return UNKNOWN

    def chunks(
        self,
        after: int,
        upto: int,
        *,
        kinds: Collection[int] | None = None,
        origins: Collection[int] | None = None,
        limit: int = 1,
        careful: bool = False,
    ) -> Chunks:
        """Return up to `limit` chunks between positions `after` and `upto`.

        `kinds` and `origins` leave out chunks that have none of them. With `careful`, what is too damaged to be read is
        passed over.
        """
        masks = _mask(kinds), _mask(origins)
        try:
            return self._chunks(after, upto, *masks, limit)
        except sqlite3.DatabaseError as error:
            if not careful or not _is_damage(error):
                raise
        damaged = behind = after
        while not (found := self._tried(behind, upto, *masks)) and behind < upto:
            damaged, behind = behind, min(behind + max(1, behind - after - CAREFUL_STEPS), upto)
        while found and behind - damaged > 1:  # a long step may have gone further than the damage does
            middle = (damaged + behind) // 2
            nearer = self._tried(middle, upto, *masks)
            damaged, behind, found = (damaged, middle, nearer) if nearer else (middle, behind, found)
        skipped = Span(after + 1, behind)
        return found._replace(skipped=skipped if behind > after else None) if found else Chunks([], upto, skipped)

    def _tried(self, after: int, upto: int, kinds: int, origins: int) -> Chunks | None:
        """Return the first chunk between two positions; None where damage is in the way."""
        with contextlib.suppress(sqlite3.DatabaseError):
            return self._chunks(after, upto, kinds, origins, 1)
        return None

    def _chunks(self, after: int, upto: int, kinds: int, origins: int, limit: int) -> Chunks:
        with self._lock:
            rows = self._db.execute(  # +first: of a damaged page SQLite does not see itself that it is out of order
                f"SELECT {_SOUND}, time, first, last, kinds, origins, checksum, heads, bodies FROM chunks WHERE first "
                f"BETWEEN ? AND ? AND +first > ? AND (NOT {_SOUND} OR last > ? AND kinds & ? AND origins & ?) "
                "ORDER BY first LIMIT ?",
                ((begin := self._begin(after)), upto, begin - 1, after, kinds, origins, limit),
            ).fetchall()
        found = [(time, Chunk(*row) if sound else self._mended(*row)) for sound, time, *row in rows]
        found = [(time, _readable(chunk)) for time, chunk in found]
        return Chunks(found, min(max(found[-1][1].last, after + 1), upto) if len(found) == limit else max(upto, after))

    def _mended(self, first: int, last: object, kinds: int, origins: int, checksum: int, *blobs: bytes) -> Chunk:
        """Return a chunk that does not lie about how far it goes, which decides where reading goes on."""
        after = self._one("SELECT min(first) FROM chunks WHERE first > ? AND +first > ?", first, first)
        end = _end(last, first, blobs[0]) if after is None else after - 1
        return Chunk(first, end, kinds, origins, checksum, *blobs)

    def _begin(self, after: int) -> int:
        """Return where the chunk begins that the first position behind `after` is in, if it is in one."""
        return self._one("SELECT max(first) FROM chunks WHERE first <= ?", after + 1) or 0

    def committed(self, after: int, upto: int) -> list[Span]:
        """Return what the chunks between `after` and `upto` span, up to where the file is damaged."""
        found: list[Span] = []
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            # Not where one that is damaged says it ends: `chunks` tells of it, whatever it is asked for.
            last = f"CASE WHEN {_SOUND} THEN last ELSE first END"
            statement = f"SELECT first, {last} FROM chunks WHERE first BETWEEN ? AND ? ORDER BY first"
            for row in self._db.execute(statement, (self._begin(after), upto)):
                found.append(Span(*row))  # noqa: PERF401  what was found before the damage is kept
        return found

    # -- what it is about, without reading it all --------------------------------------------------

    def counts(self, after: int, upto: int) -> Mapping[int, int]:
        """Return how many events each origin has in the chunks between two positions, by its number.

        Raises:
            sqlite3.DatabaseError: the file is damaged.
        """
        counts, sizes = Counter[int](), Counter[int]()
        with self._lock:
            # Not summed up by SQLite, which would read the heads for that.
            statement = "SELECT origins, length(heads) FROM chunks WHERE first > ? AND last <= ?"
            for origins, size in self._db.execute(statement, (after, upto)).fetchall():
                if not (isinstance(origins, int) and isinstance(size, int) and origins > 0):
                    raise sqlite3.DatabaseError("a chunk does not say what is in it")
                sizes[origins] += size
            for origins, size in sizes.items():
                number = origins.bit_length() - 1
                if origins == 1 << number and number < MANY:  # one alone: nothing has to be read
                    counts[number] += size // HEAD_BYTES
                    continue
                statement = "SELECT heads FROM chunks WHERE first > ? AND last <= ? AND origins = ?"
                for (head,) in self._db.execute(statement, (after, upto, origins)):
                    counts.update(heads(head)[3])
        return counts

    def newest(self, after: int, upto: int, origin: int, kinds: Collection[int]) -> Mapping[int | None, Record]:
        """Return the newest event of `origin` in the chunks between two positions of each of `kinds`, and of any.

        They are given by their kind; that of any is given for None.
        """
        missing: set[int | None] = {None, *kinds}
        found: dict[int | None, Record] = {}
        with self._lock:
            rows = self._db.execute(
                f"SELECT first, CASE WHEN {_SOUND} THEN kinds ELSE -1 END FROM chunks "
                f"WHERE first > ? AND last <= ? AND (origins & ? OR NOT {_SOUND}) ORDER BY first DESC",
                (after, upto, bit(origin)),
            ).fetchall()
            for first, mask in rows:
                if not (None in missing or mask & bits(kind for kind in missing if kind is not None)):
                    continue
                for _, chunk in self.chunks(first - 1, first).chunks:
                    for record in reversed(list(self.unpack(chunk))):
                        for key in missing & {None, record.kind} if record.origin == origin else ():
                            found[key] = record
                            missing.remove(key)
        return found

    def check(self) -> Check:
        """Read everything, and say what is there and what is not.

        Positions that were never written (`gaps`) are no damage; `holes` are: they were written and cannot be read.
        """
        seen: list[Span] = []
        for record in self.records():
            if seen and record.seq == seen[-1].last + 1:
                seen[-1] = Span(seen[-1].first, record.seq)
            else:
                seen.append(Span(record.seq, record.seq))
        gaps = self.gaps()
        return Check(
            self.path, sum(span.last - span.first + 1 for span in seen), gaps, between([*seen, *gaps], self.last)
        )

    def position_at(self, time: int) -> int:
        """Return a position before which everything was published before `time` (milliseconds since 1970, UTC)."""
        return self._one(f"SELECT max(first) - 1 FROM chunks WHERE time <= ? AND {_SOUND}", time) or max(
            self.first - 1, 0
        )

    def gaps(self) -> list[Span]:
        """Return the positions that were never written: what was invalid, and what a disk refused."""
        with self._lock:
            rows = self._db.execute("SELECT first, last FROM gaps WHERE typeof(last) = 'integer' ORDER BY first")
            return [Span(*row) for row in rows]

    def bookmarks(self) -> list[tuple[str, str, int]]:
        """Return how far which durable subscription was in which file, as far as this file knows."""
        with self._lock:
            return self._db.execute("SELECT name, file, position FROM bookmarks").fetchall()

    def set_aside(self) -> list[tuple[str, str, int, str, str]]:
        """Return what durable subscriptions gave up: name, file, position, type, error."""
        with self._lock:
            return self._db.execute("SELECT * FROM set_aside ORDER BY name, file, position").fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()


class _Checksums(dict[int, int]):
    """Checksums of names by their number, which are looked up where they are not known."""

    def __init__(self, look_up: Callable[[int], object]) -> None:
        super().__init__()
        self._look_up = look_up

    def __missing__(self, number: int) -> int:
        self[number] = checksum = zlib.crc32(repr(self._look_up(number)).encode())
        return checksum


def _readable(chunk: Chunk) -> Chunk:
    """Return `chunk`, whose damage may have made a text or nothing of its bytes."""
    heads, bodies = cast("tuple[object, object]", (chunk.heads, chunk.bodies))
    if isinstance(heads, bytes) and isinstance(bodies, bytes):
        return chunk
    return chunk._replace(heads=b"", bodies=b"")


def _end(last: object, first: int, head: object) -> int:
    """Return how far a chunk may go of which nobody knows what is damaged."""
    offsets = heads(head)[0] if isinstance(head, bytes) else ()
    ends = [end for end in (last, first + max(offsets, default=0)) if isinstance(end, int) and end < UNKNOWN]
    return max(ends, default=first)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def opens(path: Path) -> bool:
    """Return whether the system lets `path` be opened; where it does not, that may pass, and tells nothing of it."""
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def between(spans: Sequence[Span], last: int) -> list[Span]:
    """Return the positions up to `last` that lie in none of `spans`."""
    holes: list[Span] = []
    position = 0
    for span in sorted((*spans, Span(last + 1, last + 1))):
        if span.first > position + 1:
            holes.append(Span(position + 1, span.first - 1))
        position = max(position, span.last)
    return holes


def _mask(numbers: Collection[int] | None) -> int:
    """Return the bit set of `numbers`; of None, all bits."""
    return -1 if numbers is None else bits(numbers)
