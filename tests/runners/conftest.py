"""What the tests of the runners share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineside.bus import Bus


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes that begin anew, as they do by default since Python 3.14, import the tests' own datasets."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
