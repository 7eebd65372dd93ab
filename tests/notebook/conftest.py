from __future__ import annotations

from collections.abc import Generator

import pytest

from .kernels import Kernel, kernel
from .support import PATIENCE


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a display wait as long as a busy machine needs."""
    monkeypatch.setattr("lineside.bus.notebook.shown.CATCH_UP_SECONDS", PATIENCE)


@pytest.fixture(scope="package")
def lab() -> Generator[Kernel]:
    """A kernel that the tests share: each uses names and cells of its own."""
    with kernel() as made:
        yield made
