"""Random schedules of journal files that are written while a tail reads them, is cut off and goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lineside.bus.journal import Gap, Origin, Tail, Told
from lineside.bus.journal.claim import Claim
from lineside.bus.journal.file import Durability, Lines
from lineside.bus.journal.writer import JournalWriter

RUNS = ("first", "second")
NAMES = ("Step", "Done", "Odd")


class Line(NamedTuple):
    """An event as it is committed."""

    seq: int
    name: str
    origin: Origin
    body: bytes


@dataclass
class Scribe:
    """A writer of a journal file, and what it has committed."""

    path: Path
    chance: random.Random
    lines: list[Line] = field(default_factory=list[Line])
    gaps: set[int] = field(default_factory=set[int])
    seq: int = 0
    time: int = 0
    open: bool = True

    def __post_init__(self) -> None:
        self.claim = Claim(self.path)
        self.writer = JournalWriter.create(self.path, Durability.PROCESS, {})

    def commit(self, time: int) -> None:
        """Commit some lines, of those who publish here, with gaps before and between them."""
        lines: list[Line] = []
        for _ in range(self.chance.randint(1, 6)):
            if self.chance.random() < 0.1:
                skipped = self.chance.randint(1, 3)
                self.gaps.update(range(self.seq + 1, self.seq + skipped + 1))
                self.seq += skipped
            self.seq += 1
            origin = Origin(self.chance.choice(RUNS), 1, self.chance.randrange(2))
            name = self.chance.choice(NAMES)
            lines.append(Line(self.seq, name, origin, f"{self.path.stem} {self.seq}".encode()))
        seqs, names, origins, bodies = zip(*lines, strict=True)
        self.writer.commit(Lines(list(seqs), list(names), list(origins), list(bodies)), time)
        self.lines += lines

    def close(self) -> None:
        if self.open:
            self.open = False
            self.writer.close()
            self.claim.release()


class Schedule:
    """A folder that files come into, written by turns; a tail that is cut off again and again; and who compares."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.scribes: list[Scribe] = []
        self.told: list[Told] = []
        self.gaps: set[Gap] = set()
        self.run = self.chance.choice([None, None, *RUNS])
        self.names = self.chance.choice([None, None, {"Step"}, {"Done", "Odd", "Absent"}])
        self.ranks = self.chance.choice([None, None, {0}, {1}])
        self.chosen = self.run is not None or self.names is not None or self.ranks is not None
        self.tail = self.make("")

    def make(self, after: str) -> Tail:
        return Tail(self.folder, run=self.run, names=self.names, ranks=self.ranks, after=after)

    def play(self, turns: int = 60) -> None:
        try:
            self._play(turns)
        finally:
            self.tail.close()
        self.compare()

    def _play(self, turns: int) -> None:
        for turn in range(turns):
            self.chance.choices((self.begin, self.write, self.end, self.read, self.cut), (1, 8, 1, 6, 4))[0](turn)
        while self.read(turns):
            pass
        for scribe in self.scribes:
            scribe.close()
        assert not self.read(turns), "the end of a writer was told as an event"

    def begin(self, turn: int) -> None:
        if len(self.scribes) < 4:  # the names need not come in order
            self.scribes.append(Scribe(self.folder / f"{self.chance.getrandbits(32):08x}.sqlite", self.chance))

    def write(self, turn: int) -> None:
        alive = [scribe for scribe in self.scribes if scribe.open]
        if alive:
            self.chance.choice(alive).commit(turn)

    def end(self, turn: int) -> None:
        if self.scribes:
            self.chance.choice(self.scribes).close()

    def read(self, turn: int) -> bool:
        limit = self.chance.choice((1, 2, 5, 500))
        told = self.tail.read(limit)
        assert len(told) <= limit, "more was told than was asked for"
        self.told += told
        self.gaps.update(self.tail.gaps())
        return bool(told)

    def cut(self, turn: int) -> None:
        """Go on with another tail, sometimes from an event that was told earlier: the rest of it is told again."""
        self.tail.close()
        if self.told and self.chance.random() < 0.5:
            kept = self.chance.randint(max(1, len(self.told) - 8), len(self.told))
            self.told = self.told[:kept]
            self.tail = self.make(self.told[-1].position)
        else:
            self.tail = self.make(self.tail.position)

    def compare(self) -> None:
        for scribe in self.scribes:
            told = [one for one in self.told if one.file == scribe.path.name]
            seqs = [one.seq for one in told]
            wanted = [line for line in scribe.lines if self.wants(line)]
            assert len(set(seqs)) == len(seqs), "told twice"
            assert seqs == sorted(seqs), "told out of order"
            assert seqs == [line.seq for line in wanted], "lost, or told unasked"
            assert [(one.name, one.origin, one.body) for one in told] == [line[1:] for line in wanted], "told wrong"
            gaps = {n for gap in self.gaps if gap.file == scribe.path.name for n in range(gap.first, gap.last + 1)}
            assert gaps <= scribe.gaps, "a gap that is none"
            assert self.chosen or gaps == scribe.gaps, "a gap was not told"

    def wants(self, line: Line) -> bool:
        return (
            self.run in (None, line.origin.run)
            and (self.names is None or line.name in self.names)
            and (self.ranks is None or line.origin.rank in self.ranks)
        )
