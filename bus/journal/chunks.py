"""Chunks: what a journal file is made of. A chunk holds the events of one commit, as JSON, and says what they are.

Every event carries its number and a checksum of its own, because SQLite detects no bit rot: from a chunk that was
damaged, each event that is still whole can be told from those that are not.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

HEAD_BYTES = 16
"""Of each event: offset of its position in the chunk, checksum, kind, origin; in columns, 32 bits each."""
MANY = 62
"""Bit that all numbers from here on share in a bit set, which has to fit SQLite's integers."""
_SEQ = re.compile(rb'"seq":(\d+)')
LINE = b"\n"
"""Between two events: their JSON has none inside."""


class Record(NamedTuple):
    """An event as it is kept."""

    seq: int
    kind: int
    """Number of its type in the file."""
    origin: int
    """Number of its run, attempt and rank in the file."""
    body: bytes
    """Its JSON."""


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


def pack(columns: Columns) -> Chunk:
    """Return the chunk of records that are in order."""
    seqs, kinds, origins, bodies = columns
    first = seqs[0]
    offsets = [seq - first for seq in seqs]
    head = struct.pack(f"<{4 * len(seqs)}I", *offsets, *map(zlib.crc32, bodies), *kinds, *origins)
    body = LINE.join(bodies)
    last = seqs[-1]
    return Chunk(first, last, bits(kinds), bits(origins), _checksum(first, last, head, body), head, body)


def heads(head: bytes) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    """Return the columns of a chunk's `heads`: offsets, checksums, kinds, origins."""
    size = len(head) // HEAD_BYTES
    columns = struct.unpack_from(f"<{4 * size}I", head)
    return columns[:size], columns[size : 2 * size], columns[2 * size : 3 * size], columns[3 * size :]


def unpack(chunk: Chunk) -> Iterator[Record]:
    """Return the records of `chunk` that are whole."""
    bodies = chunk.bodies.split(LINE)
    offsets, checksums, kinds, origins = heads(chunk.heads)
    if _checksum(chunk.first, chunk.last, chunk.heads, chunk.bodies) == chunk.checksum:
        first = chunk.first
        return map(Record, [first + offset for offset in offsets], kinds, origins, bodies)
    # A flipped bit may have made or eaten a line break: what belongs together is found by checksum. Or it is the head
    # that is damaged: an event says itself at which position it is.
    by_checksum = {zlib.crc32(body): body for body in bodies}
    return (
        Record(chunk.first + offset, kind, origin, by_checksum[checksum])
        for offset, checksum, kind, origin in zip(offsets, checksums, kinds, origins, strict=True)
        if checksum in by_checksum and _is_at(by_checksum[checksum], chunk.first + offset)
    )


def bits(numbers: Iterable[int]) -> int:
    """Return the bit set of `numbers`."""
    mask = 0
    for number in set(numbers):
        mask |= bit(number)
    return mask


def bit(number: int) -> int:
    """Return the bit that stands for `number` in a bit set."""
    return 1 << min(number, MANY)


def _is_at(body: bytes, seq: int) -> bool:
    said = _SEQ.search(body)
    return said is None or int(said[1]) == seq


def _checksum(first: int, last: int, heads: bytes, bodies: bytes) -> int:
    return zlib.crc32(bodies, zlib.crc32(heads, zlib.crc32(b"%d %d" % (first, last))))
