"""Names of runs."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ..schemas import FrozenDict


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
