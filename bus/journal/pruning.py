"""Pruning: which files of a journal are let go, the oldest first, and never one whose writer is alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from .claim import is_claimed
from .durable import Unread
from .errors import InvalidRetention, PruneFailed
from .runs import Trace

UNREAD = timedelta(days=7)
"""Age up to which events stay that a durable subscription has not dealt with, whatever the other limits are."""
BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the files that SQLite keeps beside one."""


class Retention(NamedTuple):
    """What is kept: within all limits that are given."""

    max_age: timedelta | None
    max_bytes: int | None
    max_runs: int | None
    max_unread: timedelta | None = UNREAD

    @classmethod
    def of(
        cls, max_age: timedelta | None, max_bytes: int | None, max_runs: int | None, max_unread: timedelta | None
    ) -> Retention:
        """Return these limits.

        Raises:
            InvalidRetention: one is below 0.
        """
        for name, limit, least in (
            ("max_age", max_age, timedelta()),
            ("max_bytes", max_bytes, 0),
            ("max_runs", max_runs, 0),
            ("max_unread", max_unread, timedelta()),
        ):
            if limit is not None and limit < least:  # type: ignore[operator]  # each is of its least one's type
                raise InvalidRetention(name, limit)
        return cls(max_age, max_bytes, max_runs, max_unread)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return any(limit is not None for limit in self[:3])


@dataclass
class Bundle:
    """Files that share runs, and stay or go together."""

    paths: list[Path]
    runs: set[str]
    newest: datetime

    def add(self, other: Bundle) -> None:
        """Take in `other`."""
        self.paths += other.paths
        self.runs |= other.runs
        self.newest = max(self.newest, other.newest)

    @property
    def alive(self) -> bool:
        """Whether a writer of it is."""
        return any(map(is_claimed, self.paths))

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(_size(file) for path in self.paths for file in (path, *beside(path)))


def choose(
    found: Mapping[Path, Sequence[Trace]], behind: Mapping[Path, Sequence[Unread]], keep: Retention
) -> list[Path]:
    """Return which of the files in `found` have to go, the oldest first; `behind` says who has not read them yet."""
    bundles = sorted(_bundles(found), key=lambda bundle: bundle.newest)
    size, runs = sum(bundle.size for bundle in bundles), sum(len(bundle.runs) for bundle in bundles)
    now = datetime.now(UTC)
    chosen: list[Path] = []
    for bundle in bundles:
        too_old = keep.max_age is not None and now - bundle.newest > keep.max_age
        too_large = keep.max_bytes is not None and size > keep.max_bytes
        too_many = keep.max_runs is not None and bundle.runs and runs > keep.max_runs
        unread = any(behind.get(path) for path in bundle.paths)
        waits = unread and (keep.max_unread is None or now - bundle.newest <= keep.max_unread)
        if (too_old or too_large or too_many) and not waits and not bundle.alive:
            chosen += sorted(bundle.paths)
            size -= bundle.size
            runs -= len(bundle.runs)
    return chosen


def remove(path: Path) -> None:
    """Remove a journal file and what lies beside it.

    Raises:
        PruneFailed: the system refuses.
    """
    try:
        for file in (*beside(path), path):  # it last: as long as it is there, it will be found again
            file.unlink(missing_ok=True)
    except OSError as error:
        raise PruneFailed(path, error.strerror or str(error)) from None


def beside(path: Path) -> Iterable[Path]:
    """Return the files that may lie beside the journal file at `path`."""
    return (*(path.with_name(path.name + end) for end in BESIDE), path.with_suffix(".lock"))


def _bundles(found: Mapping[Path, Sequence[Trace]]) -> list[Bundle]:
    bundles: list[Bundle] = []
    for path, traces in found.items():
        times = [trace.newest.time for trace in traces]
        made = Bundle([path], {trace.origin.run for trace in traces}, max(times, default=_changed(path)))
        for other in [bundle for bundle in bundles if bundle.runs & made.runs]:
            bundles.remove(other)
            made.add(other)
        bundles.append(made)
    return bundles


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _changed(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.now(UTC)
