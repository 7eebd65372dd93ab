"""Chunks: what a journal file is made of. A chunk holds the events of one commit, as JSON, and says what they are.

Every event carries its number and a checksum of its own, because SQLite detects no bit rot: from a chunk that was
damaged, each event that is still whole can be told from those that are not. An event's checksum begins with its number
and the names of its type and origin: under another label it is not whole.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import add
from typing import Any, NamedTuple, TypeVar, cast

N = TypeVar("N", bound=tuple[Any, ...])

HEAD_BYTES = 16
"""Of each event: offset of its position in the chunk, checksum, kind, origin; in columns, 32 bits each."""
MANY = 62
"""Bit that all numbers from here on share in a bit set, which has to fit SQLite's integers."""
LINE = b"\n"
"""Between two events: their JSON has none inside."""
SLIPS = 3
"""Line breaks in a damaged chunk that flipped bits may have made or eaten, and the other events are still found."""


class Record(NamedTuple):
    """An event as it is kept."""

    seq: int
    kind: int
    """Number of its type in the file."""
    origin: int
    """Number of its run, attempt and rank in the file."""
    body: bytes
    """Its JSON."""


def maker(cls: type[N]) -> Callable[[tuple[Any, ...]], N]:
    """Return what makes a named tuple of a plain one, in a third of the time that its class takes."""
    return partial(cast(Any, tuple).__new__, cls)


_record = maker(Record)


class Chunk(NamedTuple):
    """The records of one commit, as a row."""

    first: int
    last: int
    kinds: int
    """Bit set of the kinds in it."""
    origins: int
    """Bit set of the origins in it."""
    checksum: int
    heads: bytes
    bodies: bytes


class Columns(NamedTuple):
    """Records, one list for each of their parts: quicker to make than an object for each."""

    seqs: Sequence[int]
    kinds: Sequence[int]
    origins: Sequence[int]
    bodies: Sequence[bytes]


class Labels(NamedTuple):
    """Checksums of what the numbers of kinds and origins stand for in a file; one that stands for nothing has none."""

    kinds: Mapping[int, int]
    origins: Mapping[int, int]


def pack(columns: Columns, labels: Labels) -> Chunk:
    """Return the chunk of records that are in order."""
    seqs, kinds, origins, bodies = columns
    first, last = seqs[0], seqs[-1]
    known = _of(labels, kinds, origins)
    # So a checksum tells of position, kind and origin too. In columns, for it is done for every event.
    starts = map(add, map(add, seqs, map(known.kinds.__getitem__, kinds)), map(known.origins.__getitem__, origins))
    offsets = [seq - first for seq in seqs]
    head = struct.pack(f"<{4 * len(seqs)}I", *offsets, *map(zlib.crc32, bodies, starts), *kinds, *origins)
    body = LINE.join(bodies)
    return Chunk(first, last, bits(kinds), bits(origins), _checksum(first, last, head, body, known), head, body)


def heads(head: bytes) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    """Return the columns of a chunk's `heads`: offsets, checksums, kinds, origins."""
    size = len(head) // HEAD_BYTES
    columns = struct.unpack_from(f"<{4 * size}I", head)
    return columns[:size], columns[size : 2 * size], columns[2 * size : 3 * size], columns[3 * size :]


def unpack(chunk: Chunk, labels: Labels) -> Iterator[Record]:
    """Return the records of `chunk` that are whole."""
    bodies = chunk.bodies.split(LINE)
    offsets, checksums, kinds, origins = heads(chunk.heads)
    seqs = [chunk.first + offset for offset in offsets]
    known = _of(labels, kinds, origins)
    if _checksum(chunk.first, chunk.last, chunk.heads, chunk.bodies, known) == chunk.checksum:
        return map(_record, zip(seqs, kinds, origins, bodies, strict=True))
    return (
        Record(seq, kind, origin, body)
        for index, (seq, kind, origin, checksum) in enumerate(zip(seqs, kinds, origins, checksums, strict=True))
        if kind in known.kinds and origin in known.origins
        for body in bodies[max(index - SLIPS, 0) : index + SLIPS + 1]
        if zlib.crc32(body, seq + known.kinds[kind] + known.origins[origin]) == checksum
    )


def _of(labels: Labels, kinds: Iterable[int], origins: Iterable[int]) -> Labels:
    """Return the labels of these numbers, as far as it is known what they stand for."""
    return Labels(_those(labels.kinds, kinds), _those(labels.origins, origins))


def _those(labels: Mapping[int, int], numbers: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for number in set(numbers):
        with contextlib.suppress(LookupError):  # what it stood for is lost
            found[number] = labels[number]
    return found


def bits(numbers: Iterable[int]) -> int:
    """Return the bit set of `numbers`."""
    mask = 0
    for number in set(numbers):
        mask |= bit(number)
    return mask


def bit(number: int) -> int:
    """Return the bit that stands for `number` in a bit set."""
    return 1 << min(number, MANY)


def _checksum(first: int, last: int, heads: bytes, bodies: bytes, labels: Labels) -> int:
    label = sum(labels.kinds.values()) + sum(labels.origins.values()) & 0xFFFFFFFF
    return zlib.crc32(bodies, zlib.crc32(heads, zlib.crc32(b"%d %d" % (first, last), label)))
