"""What the tests of the runners share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lineside.bus import Bus


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus
