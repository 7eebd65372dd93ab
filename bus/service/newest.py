"""The newest events of a run, found from the end of the journal: of a long run, almost nothing is read."""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path

from ..journal.tail import Tail, Told, key_of
from .feed import PAGE, parse, text
from .frames import Choice

REACH = 4096
"""Positions of each file that are looked through at first."""
FURTHER = 8
"""Times as many are looked through where that was not enough."""


def newest(folder: Path, run: str, choice: Choice, count: int) -> tuple[list[Told], str]:
    """Return the last `count` events of `choice`, the oldest first, and the position behind them."""
    with Tail(folder, run=run, names=()) as end:  # which passes over everything
        end.read()
        ends = parse(end.position)
    reach = dict.fromkeys(ends, max(count, REACH))
    while True:
        begins = {key: max(seq - reach[key], 0) for key, seq in ends.items()}
        kept, found, position = _behind(folder, run, choice, text(begins), count)
        rare = [key for key, seq in begins.items() if seq and found[key] < count]
        if not rare:
            return kept, position
        for key in rare:
            reach[key] *= FURTHER


def _behind(folder: Path, run: str, choice: Choice, after: str, count: int) -> tuple[list[Told], Counter[str], str]:
    """Return the last `count` of what comes after a position, how much of it is in each file, and where that ends."""
    kept = deque[Told](maxlen=count)
    found = Counter[str]()
    with Tail(folder, run=run, names=choice.names, ranks=choice.ranks, after=after) as tail:
        while True:
            told = tail.read(PAGE)
            kept += told
            found.update(key_of(one.file) for one in told)
            if len(told) < PAGE:
                return list(kept), found, tail.position
