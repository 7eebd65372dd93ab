"""A curve of bounded size that keeps its spikes."""

from __future__ import annotations

import math

Row = tuple[int, float | None, float | None, float | None]
"""Some points that follow each other, as one: the x of the first, their smallest, largest and mean value. None where
none of them can be drawn."""

LARGEST = 1e200
"""What is beyond it in size is as good as infinite: an axis that had room for it would end beyond all numbers."""


class Series:
    """The points of a curve, thinned out so that they are never more than `limit` rows.

    Where there are too many, each two neighbours become one that keeps the smallest and the largest value of both. So
    the extremes are there however long the curve becomes, to the six digits of `short`, and adding costs the same.
    """

    def __init__(self, limit: int = 600) -> None:
        self.limit = limit
        self.generation = 0
        """Counts on when rows that were there before have changed."""
        self._width = 1  # points of a whole row
        self._rows: list[_Bucket] = []

    def add(self, x: int, value: float) -> None:
        """Add a point behind all others."""
        last = self._rows[-1] if self._rows else None
        if last is None or last.points >= self._width:
            if len(self._rows) >= self.limit:
                self._halve()
                if self._rows[-1].points < self._width:
                    self._rows[-1].add(value)
                    return
            self._rows.append(last := _Bucket(x))
        last.add(value)

    def cut(self, x: int) -> None:
        """Forget what is at `x` and beyond: it is done again."""
        kept = [row for row in self._rows if row.x < x]
        if len(kept) < len(self._rows):
            self._rows = kept
            self.generation += 1

    @property
    def newest(self) -> float | None:
        """The value of the newest point; None where there is none."""
        return self._rows[-1].newest if self._rows else None

    def rows(self, begin: int = 0) -> list[Row]:
        """Return the rows from `begin` on."""
        return [row.row() for row in self._rows[begin:]]

    def __len__(self) -> int:
        return len(self._rows)

    def _halve(self) -> None:
        pairs = [self._rows[at : at + 2] for at in range(0, len(self._rows), 2)]
        for first, *rest in pairs:
            for other in rest:
                first.join(other)
        self._rows = [pair[0] for pair in pairs]
        self._width *= 2
        self.generation += 1


class _Bucket:
    __slots__ = ("drawn", "high", "low", "newest", "points", "total", "x")

    def __init__(self, x: int) -> None:
        self.x = x
        self.points = self.drawn = 0
        self.low, self.high, self.total = math.inf, -math.inf, 0.0
        self.newest = math.nan

    def add(self, value: float) -> None:
        self.points += 1
        self.newest = value
        if drawable(value):
            self.drawn += 1
            self.total += value
            self.low, self.high = min(self.low, value), max(self.high, value)

    def join(self, other: _Bucket) -> None:
        self.points += other.points
        self.drawn += other.drawn
        self.total += other.total
        self.newest = other.newest
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def row(self) -> Row:
        if not self.drawn:
            return self.x, None, None, None
        mean = min(max(self.total / self.drawn, self.low), self.high)  # a sum of large numbers may round beyond them
        return self.x, short(self.low), short(self.high), short(mean)


def drawable(value: float) -> bool:
    """Return whether `value` is a number that a picture has room for."""
    return abs(value) <= LARGEST


def short(value: float) -> float | None:
    """Return `value` with the six digits that a picture can show; None where it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
