"""Names of runs."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain

from ..bus import Bus, BusForked
from ..bus.journal import Journal, JournalError
from ..schemas import FrozenDict, RunStart


@dataclass(frozen=True)
class Identity:
    """What every event of a run is stamped with."""

    run: str
    """Id of the run."""
    attempt: int = 1
    """Attempt, from 1; a resumed run has the same id and the next attempt."""
    rank: int = 0
    """Rank of this process in a distributed run."""


def new_run_id(kind: str) -> str:
    """Return an id such as ``train-20261121-184501-3f9a``: kind, time (UTC) and random digits."""
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def newest_attempt(bus: Bus, run: str, rank: int = 0) -> int:
    """Return the number of the newest attempt at `run` on `rank` that the bus or its journal knows; 0: of none."""
    found = 0
    with suppress(BusForked, JournalError):  # it tells of nothing; or the folder is gone, which is the bus's concern
        begun = bus.remembered(RunStart, run=run).events
        before = () if bus.journal is None else Journal(bus.journal.parent).events(RunStart, run=run)
        for start in chain(begun, before):
            found = max(found, start.attempt) if start.rank == rank else found
    return found


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of Python, torch and this package, where they are installed."""
    found = {"python": platform.python_version()}
    for package in ("torch", "lineside"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # e.g. run from a source tree that was never installed
            continue
    return FrozenDict(found)
