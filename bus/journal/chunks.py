"""Chunks: what a journal file is made of. A chunk holds the events of one commit, as JSON, and says what they are.

Every event carries its number and a checksum of its own, because SQLite detects no bit rot: from a chunk that was
damaged, each event that is still whole can be told from those that are not.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

HEAD = struct.Struct("<IIHH")
"""Of one event: offset of its position in the chunk, checksum, kind, origin."""
MANY = 62
"""Bit that all numbers from here on share in a bit set, which has to fit SQLite's integers."""
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


def pack(records: Sequence[Record]) -> Chunk:
    """Return the chunk of `records`, which are in order."""
    first = records[0].seq
    kinds = origins = 0
    heads: list[bytes] = []
    for seq, kind, origin, body in records:
        kinds |= bit(kind)
        origins |= bit(origin)
        heads.append(HEAD.pack(seq - first, zlib.crc32(body), kind, origin))
    head, bodies = b"".join(heads), LINE.join([record.body for record in records])
    return Chunk(first, records[-1].seq, kinds, origins, _checksum(head, bodies), head, bodies)


def unpack(chunk: Chunk) -> Iterator[Record]:
    """Yield the records of `chunk` that are whole."""
    bodies = chunk.bodies.split(LINE)
    if _checksum(chunk.heads, chunk.bodies) == chunk.checksum:
        for (offset, _, kind, origin), body in zip(HEAD.iter_unpack(chunk.heads), bodies, strict=True):
            yield Record(chunk.first + offset, kind, origin, body)
        return
    # A flipped bit may have made or eaten a line break: what belongs together is found by checksum.
    by_checksum = {zlib.crc32(body): body for body in bodies}
    whole = len(chunk.heads) // HEAD.size * HEAD.size
    for offset, checksum, kind, origin in HEAD.iter_unpack(chunk.heads[:whole]):
        if checksum in by_checksum and chunk.first + offset <= chunk.last:
            yield Record(chunk.first + offset, kind, origin, by_checksum[checksum])


def bit(number: int) -> int:
    """Return the bit that stands for `number` in a bit set."""
    return 1 << min(number, MANY)


def _checksum(heads: bytes, bodies: bytes) -> int:
    return zlib.crc32(bodies, zlib.crc32(heads))
