from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lineside.bus import Bus

from .support import PATIENCE


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """What a test leaves running would be found by another."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("lineside")]
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread for thread in left if thread.is_alive()]
