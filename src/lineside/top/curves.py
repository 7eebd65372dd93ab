"""Curves out of characters: a line of blocks, and a chart of braille dots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import isfinite

from rich.text import Text

from lineside.bus.subscribers import text
from lineside.bus.subscribers.drawing import DIM

BLOCKS = "▁▂▃▄▅▆▇█"
BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of the dots of a character: by column, from the top."""
MARGIN = 9
"""Width of what stands left of a chart."""


class Curve:
    """A series over steps. Where it has too many points, those side by side become one, so that it keeps its begin.

    Args:
        most: Points that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 1
        self._part: list[float] = []
        self.steps: list[float] = []
        self.values: list[float] = []
        self.newest: float | None = None
        """The newest value as it was, even if it is not finite."""

    def add(self, step: float, value: float) -> None:
        """Add a point. One that is not finite is not drawn."""
        self.newest = value
        if not isfinite(value):
            return
        if not self._part:
            self.steps.append(step)
            self.values.append(value)
        self._part.append(value)
        self.values[-1] = _mean(self._part)
        if len(self._part) >= self._size:
            self._part.clear()
        if len(self.steps) > self._most:
            self._merge()

    def cut(self, step: float) -> None:
        """Forget what was from `step` on."""
        first = bisect_left(self.steps, step)
        del self.steps[first:], self.values[first:]
        self.newest = self.values[-1] if self.values else None
        self._part.clear()

    def _merge(self) -> None:
        pairs = [self.values[index : index + 2] for index in range(0, len(self.values), 2)]
        self.steps = self.steps[::2]
        self.values = [_mean(pair) for pair in pairs]
        self._size *= 2
        self._part.clear()


def sparkline(values: Sequence[float], width: int) -> str:
    """Return `values` as a line of at most `width` blocks, each for a mean, the lowest block for the smallest."""
    means = list(_means(values, width))
    if not means:
        return ""
    low, high = min(means), max(means)
    if high == low:
        return BLOCKS[3] * len(means)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round(_share(value, low, high) * top)] for value in means)


def _means(values: Sequence[float], count: int) -> Iterator[float]:
    """Yield the means of `count` parts of `values`, or the values where there are fewer."""
    count = min(count, len(values))
    for index in range(count):
        part = values[index * len(values) // count : (index + 1) * len(values) // count]
        yield _mean(part)


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)  # their sum may be more than a float holds


def _share(value: float, low: float, high: float) -> float:
    """Return where `value` is between `low`, 0, and `high`, 1; in the middle if these are the same."""
    span = high / 2 - low / 2  # the whole may be more than a float holds
    return (value / 2 - low / 2) / span if span > 0 else 0.5


def chart(title: Text, curve: Curve, width: int, height: int, style: str) -> list[Text]:
    """Return `height` lines of `width` characters: the title, the curve with its range, and the steps it is over."""
    rows = height - 2
    lines = [_fit(title, width)]
    if not curve.values:
        said = ["no finite value" if row == rows // 2 else "" for row in range(rows + 1)]
        return lines + [_fit(Text(f"{'':{MARGIN}}{words}", DIM), width) for words in said]
    low, high = min(curve.values), max(curve.values)
    for row, dots in enumerate(_plot(curve, width - MARGIN, rows, low, high)):
        label = text.number(high) if row == 0 else text.number(low) if row == rows - 1 and high > low else ""
        lines.append(_fit(Text.assemble((f"{label:>{MARGIN - 2}} ", DIM), ("│", DIM), (dots, style)), width))
    begin, end = f"{curve.steps[0]:,.0f}", f"{curve.steps[-1]:,.0f}"
    gap = width - MARGIN - len(begin) - len(end)
    lines.append(_fit(Text(f"{'':{MARGIN}}{begin}{'':{max(gap, 1)}}{end}", DIM), width))
    return lines


def _plot(curve: Curve, width: int, height: int, low: float, high: float) -> list[str]:
    """Return the lines of the curve, each value of a column of dots joined to the one before."""
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for x, value in enumerate(_columns(curve, 2 * width)):
        if value is None:
            continue
        y = round((1 - _share(value, low, high)) * (4 * height - 1))
        begin = y if before is None else before
        for dot in range(min(y, begin), max(y, begin) + 1):
            cells[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        before = y
    return ["".join(chr(BRAILLE + cell) for cell in row) for row in cells]


def _columns(curve: Curve, count: int) -> list[float | None]:
    """Return the value at each of `count` columns, those between two points on the line between them."""
    found: list[float | None] = [None] * count
    if not curve.steps:
        return found
    first, last = curve.steps[0], curve.steps[-1]
    scale = (count - 1) / (last - first) if last > first else 0.0
    before: tuple[int, float] | None = None
    for step, value in zip(curve.steps, curve.values, strict=True):
        x = round((step - first) * scale)
        if before is not None:
            for between in range(before[0] + 1, x):
                share = (between - before[0]) / (x - before[0])
                found[between] = (1 - share) * before[1] + share * value
        found[x] = value
        before = x, value
    return found


def _fit(line: Text, width: int) -> Text:
    """Return `line` cut or filled to `width`."""
    line.truncate(width, overflow="ellipsis", pad=True)
    return line
